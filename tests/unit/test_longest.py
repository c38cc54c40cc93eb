"""The test files that take longest start first."""

import os
import subprocess
import sys
from itertools import groupby

import pytest

from tests.support.longest import LONGEST, took_longest
from tests.support.paths import ROOT


def test_every_listed_file_exists_and_is_listed_once() -> None:
    """The list is tests/longest.txt."""
    assert [file for file in LONGEST if not (ROOT / file).is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)


def test_the_listed_files_are_collected_first() -> None:
    """The order of the request does not matter, and the tests of one file stay together."""
    later, sooner = "tests/unit/rollout/judge/test_rates.py", LONGEST[-1]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", later, sooner]
    plain = os.environ | {"PYTEST_ADDOPTS": ""}  # the person who runs this may want more output
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True)
    listed = done.stdout.splitlines()
    files = [line.partition("::")[0] for line in listed if "::" in line]
    assert [file for file, _ in groupby(files)] == [sooner, later]


def report(file: str, duration: float) -> pytest.TestReport:
    return pytest.TestReport(f"{file}::test", (file, 0, "test"), {}, "passed", None, "call", duration=duration)


def test_the_time_of_a_file_is_the_sum_of_its_tests() -> None:
    """The longest files come first, and only as many as requested."""
    reports = [report("a.py", 30.0), report("b.py", 20.0), report("b.py", 21.4), report("c.py", 1.0)]
    assert took_longest(reports, 2) == ["    41 s  b.py", "    30 s  a.py"]
