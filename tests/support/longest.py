"""Which test files take longest: they start first, so that no worker is left alone with one at the end."""

from collections import defaultdict
from collections.abc import Iterable

import pytest

from tests.support.paths import ROOT

_LINES = (ROOT / "tests" / "longest.txt").read_text().splitlines()
LONGEST = tuple(line for line in _LINES if not line.startswith("#"))


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests of these files before all others and keep the order otherwise."""
    places = {ROOT / file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def took_longest(reports: Iterable[pytest.TestReport], most: int = 10) -> list[str]:
    """The files that took longest, with their seconds."""
    took_s: defaultdict[str, float] = defaultdict(float)
    for report in reports:
        took_s[report.nodeid.partition("::")[0]] += report.duration
    return [f"{took_s[file]:6.0f} s  {file}" for file in sorted(took_s, key=took_s.__getitem__, reverse=True)[:most]]
