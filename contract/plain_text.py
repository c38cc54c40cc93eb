"""Text of others, such as names, reasons and logs, without the characters that steer a terminal."""

import re
import unicodedata

# Control characters but tab and newline, marks of the writing direction, other line ends, halves of characters.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What nobody sees besides Unicode's category Cf: by its property Default_Ignorable_Code_Point, and an empty letter.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


def printable(text: str) -> str:
    """`text` as it may be shown: an escape sequence loses its escape, and is read as what it is."""
    return _STEERING.sub("", text)


def one_line(text: str) -> str:
    """The same without line breaks: a name cannot look like a line of ours."""
    return " ".join(printable(text).split())


def visible(text: str) -> str:
    """`text` without the characters that nobody sees: it is what a reader takes it for."""
    return _UNSEEN.sub("", "".join(letter for letter in text if unicodedata.category(letter) != "Cf"))


def read_as(name: str) -> str:
    """A name for comparison: two that differ in capitals, width, or what nobody sees are one to a reader.

    Letters of other alphabets that look alike, such as a Cyrillic a, stay different.
    """
    return one_line(unicodedata.normalize("NFKC", visible(name))).casefold()
