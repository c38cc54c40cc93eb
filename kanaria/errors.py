"""Errors of the local stack."""

from contract.errors import KanariaError


class StackError(KanariaError):
    """The local stack could not do what was asked."""


class SetupError(StackError):
    """The stack cannot even start as it is set up: a port is taken, a program is missing."""
