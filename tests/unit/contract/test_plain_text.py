"""Text of others keeps its letters and loses what steers a terminal."""

import pytest

from contract.plain_text import one_line, printable, read_as, visible

STEERING = {
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


@pytest.mark.parametrize("text", STEERING)
def test_what_steers_a_terminal_is_left_out(text: str) -> None:
    """Escapes, moves of the cursor, turned writing directions, other ends of lines."""
    assert printable(text) == STEERING[text]


@pytest.mark.parametrize("text", ["Zoë, 雪, naïve 👩\u200d💻", "two\nlines\tand a tab", "5 % and so on", ""])
def test_all_that_people_write_stays(text: str) -> None:
    """Whatever their language, on as many lines as they like."""
    assert printable(text) == text


def test_a_name_is_one_line() -> None:
    """It cannot look like a line of ours."""
    assert one_line("eve\n • The evidence\r\n\x1b[1A") == "eve • The evidence [1A"


@pytest.mark.parametrize("text", ["ju\u200bdge", "\u2060judge\ufeff", "ju\u00addge", "judge"])
def test_a_name_is_compared_as_it_is_seen(text: str) -> None:
    """Spaces of no width, joiners and soft hyphens hide in it."""
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
def test_names_that_a_reader_takes_for_one_are_one(name: str) -> None:
    """Capitals, other spaces, full width, and what nobody sees."""
    assert read_as(name) == "ann lee"


def test_accents_are_the_same_however_they_are_written() -> None:
    """As one letter or as two; without them it is another name."""
    assert read_as("Zoe\u0308") == read_as("Zo\u00eb") != read_as("Zoe")
