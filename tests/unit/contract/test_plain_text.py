"""Untrusted text keeps its letters and loses the characters that control a terminal."""

import pytest

from contract.plain_text import one_line, printable, read_as, visible

CONTROLLING = {
    "\x1b[2Jmallory": "[2Jmallory",
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\": "]8;;http://evil\\click]8;;\\",
    "\x9b31mred": "31mred",
    "healthy\rbroken": "healthybroken",
    "broken\x08\x08": "broken",
    "bell\x07, null\x00, delete\x7f": "bell, null, delete",
    "gpj.\u202eexe": "gpj.exe",
    "a\u2028b\u2029c": "abc",
    "half \ud83d of one": "half  of one",
}


@pytest.mark.parametrize("text", CONTROLLING)
def test_characters_that_control_a_terminal_are_removed(text: str) -> None:
    """These are escapes, cursor movements, reversed writing directions and unusual line ends."""
    assert printable(text) == CONTROLLING[text]


@pytest.mark.parametrize("text", ["Zoë, 雪, naïve 👩\u200d💻", "two\nlines\tand a tab", "5 % and so on", ""])
def test_normal_text_is_kept(text: str) -> None:
    """Text in any language and on any number of lines is unchanged."""
    assert printable(text) == text


def test_a_name_becomes_one_line() -> None:
    """It cannot imitate a line of our own output."""
    assert one_line("eve\n • The evidence\r\n\x1b[1A") == "eve • The evidence [1A"


@pytest.mark.parametrize("text", ["ju\u200bdge", "\u2060judge\ufeff", "ju\u00addge", "judge"])
def test_a_name_is_compared_without_invisible_characters(text: str) -> None:
    """Zero-width spaces, joiners and soft hyphens are ignored."""
    assert visible(text) == "judge"


@pytest.mark.parametrize(
    "name",
    [
        "Ann Lee",
        "ann  lee",
        "ann\u00a0lee",
        "a\u200bnn lee",
        "ann\ufe0f lee",
        "\uff41nn lee",
        "ann\u3164 lee",
        "ann lee\u2800",
    ],
)
def test_names_that_look_the_same_are_the_same(name: str) -> None:
    """Capitals, other spaces, full-width letters and invisible characters make no difference."""
    assert read_as(name) == "ann lee"


def test_an_accent_is_the_same_in_either_encoding() -> None:
    """An accent may be one character or two; without it the name is a different one."""
    assert read_as("Zoe\u0308") == read_as("Zo\u00eb") != read_as("Zoe")
