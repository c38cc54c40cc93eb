"""Errors raised on purpose in benchmarks/."""

from contract.errors import KanariaError


class BenchmarkError(KanariaError):
    """A server cannot be compared: it did not start, did not answer, or gave another answer."""
