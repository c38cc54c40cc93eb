"""Errors of the local stack."""

from contract.errors import KanariaError


class StackError(KanariaError):
    """The local stack could not do what was requested."""


class SetupError(StackError):
    """The set-up or the input is wrong: for example, a port is taken or a program is missing."""
