"""A process that replaces the command line and environment that the system shows of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.support.children import started

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these memory areas")

ROOM_FOR_WORDS, ROOM = " " * 500, {"ROOM": "-" * 5000}
SHOW = """
import json, sys, time
from kanaria.stack.shown_words import show
try:
    print(show(*json.loads(sys.stdin.readline())), flush=True)
except OSError as error:
    print(error, flush=True)
time.sleep(600)
"""
WORDS = ["python", "-m", "an empty one:", "", "näh"]
VARIABLES = {"MARK": "a folder", "LINES": "one\ntwo", "EMPTY": "", "BYTES": "\udcff", "EQUALS": "a=b"}


@contextmanager
def showing(words: list[str], variables: dict[str, str]) -> Iterator[tuple[psutil.Process, str]]:
    """A process that shows these words and variables, and the error that it got."""
    command = [sys.executable, "-c", SHOW, ROOM_FOR_WORDS]
    pipe = subprocess.PIPE
    with started(command, env={**os.environ, **ROOM}, stdin=pipe, stdout=pipe, text=True) as process:
        process.stdin.write(f"{json.dumps([words, variables])}\n")
        process.stdin.flush()
        yield psutil.Process(process.pid), process.stdout.readline().strip()


def test_another_process_sees_only_the_new_words_and_variables() -> None:
    """The rest of the space is one word of blanks."""
    with showing(WORDS, VARIABLES) as (process, error):
        assert error == "None"
        *words, blanks = process.cmdline()
        assert (words, blanks.strip()) == (WORDS, "")
        assert process.environ() == VARIABLES


def test_no_words_and_no_variables_are_shown_as_none() -> None:
    """Another process then sees an empty command line and an empty environment."""
    with showing([], {}) as (process, _):
        assert "".join(process.cmdline()).strip() == ""
        assert process.environ() == {}


@pytest.mark.parametrize(
    ("words", "variables"), [(["w" * 9000], VARIABLES), (WORDS, {"LONG": "v" * 900_000})], ids=["words", "variables"]
)
def test_words_or_variables_that_do_not_fit_change_nothing(words: list[str], variables: dict[str, str]) -> None:
    """Neither the words nor the variables are written."""
    with showing(words, variables) as (process, error):
        assert "no room" in error
        assert process.cmdline()[0] == sys.executable
        assert process.environ().keys() >= ROOM.keys()
