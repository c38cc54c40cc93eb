"""Text of others, such as names, reasons and logs, without the characters that steer a terminal."""

import re
import unicodedata

# Control characters but tab and newline, marks of the writing direction, other line ends, halves of characters.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` as it may be shown: an escape sequence loses its escape, and is read as what it is."""
    return _STEERING.sub("", text)


def one_line(text: str) -> str:
    """The same without line breaks: a name cannot look like a line of ours."""
    return " ".join(printable(text).split())


def visible(text: str) -> str:
    """`text` without the characters that nobody sees, Unicode's category Cf: it is what a reader takes it for."""
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
