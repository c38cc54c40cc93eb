"""The files of tests that take longest are begun first."""

import os
import subprocess
import sys
from itertools import groupby

import pytest

from tests.support.longest import LONGEST, took_longest
from tests.support.paths import ROOT


def test_every_file_that_takes_long_is_there() -> None:
    """And named once."""
    assert [file for file in LONGEST if not (ROOT / file).is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)


def test_they_are_collected_before_all_others() -> None:
    """Whatever order they were asked for in; the tests of one file stay together."""
    later, sooner = "tests/unit/rollout/judge/test_rates.py", LONGEST[-1]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", later, sooner]
    plain = os.environ | {"PYTEST_ADDOPTS": ""}  # whoever runs this may want more to be said
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True)
    listed = done.stdout.splitlines()
    files = [line.partition("::")[0] for line in listed if "::" in line]
    assert [file for file, _ in groupby(files)] == [sooner, later]


def report(file: str, duration: float) -> pytest.TestReport:
    return pytest.TestReport(f"{file}::test", (file, 0, "test"), {}, "passed", None, "call", duration=duration)


def test_a_file_took_as_long_as_all_its_tests() -> None:
    """The longest first, and no more than was asked for."""
    reports = [report("a.py", 30.0), report("b.py", 20.0), report("b.py", 21.4), report("c.py", 1.0)]
    assert took_longest(reports, 2) == ["    41 s  b.py", "    30 s  a.py"]
