"""What is shown from the log of a version, which may contain anything."""

import subprocess
import sys
from pathlib import Path

import pytest

from kanaria.stack.log_words import last_line, last_words, what_it_lacks


def test_a_log_cannot_control_the_terminal(tmp_path: Path) -> None:
    """The line that names the error is found, without its control sequences."""
    log = tmp_path / "version.log"
    log.write_bytes(b"loading 10 %\rloading 99 %\r\n\x1b]0;owned\x07\n\x1b[31mbye\xff\n")
    assert last_line(log) == "[31mbye\ufffd"
    log.write_bytes(b"ValueError: \x1b[2Jgone\n")
    assert last_words(log) == "ValueError: [2Jgone"


def test_a_variable_that_the_version_lacked_comes_from_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the error is a long list of variables that were not passed.

    The end of that list was mistaken for the version's own words.
    """
    log = tmp_path / "version.log"
    for name in ("HF_TOKEN", "LAST_OF_MANY"):
        monkeypatch.setenv(name, "secret")
    told = f"not passed of the environment: {'X, ' * 1300}LAST_OF_MANY (see KANARIA_PASS_ENV)\n"
    log.write_text(f"{told}Error: 'HF_TOKEN' is required for service 'ranker'\n")
    assert what_it_lacks((), log).startswith("HF_TOKEN of the environment is not passed to it")
    assert what_it_lacks(None, log) == ""
    log.write_text("x" * 10_000)
    assert last_line(log) == "x" * 300


def test_an_error_that_led_to_another_error_is_not_the_reason(tmp_path: Path) -> None:
    """A crashed version was restarted, and its log was read while it wrote its second traceback."""
    log, code = tmp_path / "version.log", tmp_path / "version.py"
    code.write_text("try:\n    import no_such_module\nexcept ImportError:\n    raise RuntimeError('built broken')\n")
    ended = subprocess.run([sys.executable, code], check=False, capture_output=True).stderr
    log.write_bytes(ended)
    assert last_words(log) == "RuntimeError: built broken"
    led_to_it = ended.index(b"During handling")
    log.write_bytes(ended + ended[: ended.index(b"\n", led_to_it) + 1])
    assert last_words(log) == "RuntimeError: built broken"
