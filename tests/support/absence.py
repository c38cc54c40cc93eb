"""What a test does when something that it needs is not installed."""

import os
from typing import NoReturn

import pytest

from tests.support.paths import ROOT

_LINES = (ROOT / "tests" / "programs.txt").read_text().splitlines()
DEBIAN_PACKAGES = dict(line.split() for line in _LINES if not line.startswith("#"))  # by program


def is_strict() -> bool:
    """Whether a missing dependency fails the test: where CI is set, nobody would notice a skip."""
    return bool(os.environ.get("CI"))


def leave_out(reason: str) -> NoReturn:
    """Skip the test so that a person sees what is missing; fail it where CI is set."""
    if is_strict():
        pytest.fail(reason)
    pytest.skip(reason)
