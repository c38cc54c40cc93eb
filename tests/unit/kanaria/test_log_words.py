"""What is shown of the log of a version, which may write there what it likes."""

from pathlib import Path

from kanaria.stack.log_words import last_line, last_words


def test_a_log_cannot_steer_a_terminal(tmp_path: Path) -> None:
    """The line that names the error is found, without what it tells the terminal to do."""
    log = tmp_path / "version.log"
    log.write_bytes(b"loading 10 %\rloading 99 %\r\n\x1b]0;owned\x07\n\x1b[31mbye\xff\n")
    assert last_line(log) == "[31mbye\ufffd"
    log.write_bytes(b"ValueError: \x1b[2Jgone\n")
    assert last_words(log) == "ValueError: [2Jgone"
