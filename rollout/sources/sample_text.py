"""Reads the samples in Prometheus's answers from the text: half a million samples as Python objects take seconds."""

import re

import numpy as np

from rollout.signals.growth import Floats

Samples = tuple[Floats, Floats]  # times, Unix seconds, and values

_VALUES = re.compile(rb'"values"\s*:\s*\[(?=\s*\[)')
_END = re.compile(rb"\]\s*\]")
_COMPACT = b'{"status":"success","data":{'  # the beginning of an answer without spaces
_FIRST_MS, _LAST_S = 10**12, 10**10 - 1  # since 2001, a time in milliseconds has 13 digits, and one in seconds 10
_LARGEST = np.iinfo(np.int64).max  # any larger number is read as this one


def without_samples(content: bytes, samples: list[Samples]) -> bytes:
    """Move the samples of an answer to `samples`; each series then has the index of its samples.

    The text that is searched for cannot be part of a label, because JSON escapes quotes. Series that were scraped
    together share one array of times.

    Raises: ValueError for text that is not a sample.
    """
    parts, at = [], 0
    shared: dict[tuple[int, bytes], Floats] = {}
    is_compact = content.startswith(_COMPACT)
    while found := _VALUES.search(content, at):
        end = _end(content, found.end(), is_compact=is_compact)
        if end is None:
            break
        text = content[found.end() : end[0]]
        parts += [content[at : found.start()], b'"values":%d' % len(samples)]
        samples.append((_whole_numbers(text, shared) if is_compact else None) or _numbers(text))
        at = end[1]
    return b"".join([*parts, content[at:]])


def _end(content: bytes, begin: int, *, is_compact: bool) -> tuple[int, int] | None:
    """The end of the samples that start at `begin`, and where the text continues."""
    if is_compact:
        # A search for one letter is many times faster than for two letters, of which the first is in every sample.
        brace = content.find(b"}", begin)
        has_more = content[brace - 2 : brace] != b"]]" or content.find(b"{", begin, brace) >= 0
        place = content.find(b"]]", begin) if has_more else brace - 2
        return None if place < 0 else (place, place + 2)
    found = _END.search(content, begin)
    return found.span() if found else None


def _numbers(text: bytes) -> Samples:
    """Times and values in turn, with commas between them. Raises ValueError."""
    bare = text.translate(None, b'[]"')
    read = np.fromstring(bare, dtype=np.float64, sep=",")
    if len(read) != bare.count(b",") + 1 or len(read) % 2:
        raise ValueError(f"these are not samples: {bare[:100]!r}")
    return np.ascontiguousarray(read[::2]), np.ascontiguousarray(read[1::2])


def _whole_numbers(text: bytes, shared: dict[tuple[int, bytes], Floats]) -> Samples | None:
    """The same numbers five times as fast, if every value is whole and every time has three decimals or none.

    Without spaces, each sample is `[time,"value"]`, here without the last bracket. So the number of characters left out
    shows whether all samples were read, and how many dots there were.
    """
    bare = text.translate(None, b'[]".')
    if not bare[bare.rfind(b",") + 1 :].isdigit():  # numpy might read only a part of the last value
        return None
    try:
        read = np.fromstring(bare, dtype=np.int64, sep=",")
    except (ValueError, DeprecationWarning):  # DeprecationWarning if warnings are errors: numpy stopped at a non-number
        return None
    times, values = read[::2], read[1::2]
    dots = len(text) - len(bare) - (4 * len(times) - 1)
    if len(read) % 2 or not 0 <= dots <= len(times) or values.max() == _LARGEST:
        return None
    key = dots, times.tobytes()
    known = shared.get(key)
    if known is None:
        known = _times(times, dots)
        if known is None:
            return None
        shared[key] = known
    return known, values.astype(np.float64)


def _times(read: np.ndarray[tuple[int], np.dtype[np.int64]], dots: int) -> Floats | None:
    """Times in seconds, from numbers of which `dots` had a dot before their last three digits."""
    is_ms = read >= _FIRST_MS
    if int(np.count_nonzero(is_ms)) != dots or (~is_ms & (read > _LAST_S)).any():
        return None
    return read / np.where(is_ms, 1000.0, 1.0)
