"""Fixtures that every kind of test shares."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("kanaria", deadline=None)  # no timed asserts: a busy machine is no bug
settings.load_profile("kanaria")


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], str]:
    """Give the path of a program; without it the test is skipped by name, or fails where CI is set."""

    def find(name: str) -> str:
        beside_python = Path(sys.executable).parent / name
        path = str(beside_python) if beside_python.exists() else shutil.which(name)
        if path is None:
            message = f"{name} is not installed"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        return path

    return find
