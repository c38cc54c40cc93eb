"""Errors raised on purpose in service/optimise."""

from contract.errors import KanariaError


class OptimiseError(KanariaError):
    """A model cannot be optimised as asked."""
