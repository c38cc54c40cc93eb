"""Removes the characters that control a terminal from untrusted text, such as names, reasons and logs."""

import re
import unicodedata

# Control characters except tab and newline, marks of the writing direction, other line ends, surrogates.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Invisible characters outside Unicode's category Cf: Default_Ignorable_Code_Point, and a blank letter.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


def printable(text: str) -> str:
    """`text` made safe to show: an escape sequence loses its escape character and becomes visible text."""
    return _STEERING.sub("", text)


def one_line(text: str) -> str:
    """As `printable`, without line breaks: a name cannot look like a line of our own output."""
    return " ".join(printable(text).split())


def visible(text: str) -> str:
    """`text` without invisible characters, as a reader sees it."""
    return _UNSEEN.sub("", "".join(letter for letter in text if unicodedata.category(letter) != "Cf"))


def read_as(name: str) -> str:
    """A name for comparison: two names are equal if they differ only in capitals, width or invisible characters.

    Letters of other alphabets that look alike, such as a Cyrillic a, stay different.
    """
    return one_line(unicodedata.normalize("NFKC", visible(name))).casefold()
