"""Reads the wanted samples from the text of a metrics page."""

import re
from collections.abc import Iterator, Sequence

from prometheus_client.parser import text_string_to_metric_families

from rollout.signals.counters import Sample

LARGEST_PAGE = 16 * 2**20  # bytes; with thousands of classes, or many segments at the gateway, it has some MB
_LONGEST_LINE = 16_384  # characters; the parser of labels takes four times as long for twice as many
_EXEMPLAR = re.compile(r"(?<=\S) # \{[^{}]*\} \S+( \S+)?$", re.MULTILINE)  # an exemplar, which OpenMetrics allows


def parsed(text: str, series: Sequence[str], *, is_foreign: bool = False) -> list[Sample]:
    """The samples of the lines that begin with one of `series`. Lines that are too long are left out.

    Args:
        is_foreign: the series are not Kanaria's: if one line cannot be read, no samples are returned.

    Raises: ValueError for a line that cannot be read, unless the lines are foreign.
    """
    wanted = "\n".join(line for line in lines(text) if line.startswith(tuple(series)))
    if not is_foreign:
        return _samples(wanted)
    try:
        return _samples(without_exemplars(wanted))
    except ValueError:
        return []


def lines(text: str) -> Iterator[str]:
    """The lines of a page, without those that are too long for a sample."""
    # Not `splitlines`, which would split at U+2028: a label may hold it.
    return (line for line in text.split("\n") if len(line) <= _LONGEST_LINE)


def without_exemplars(text: str) -> str:
    """A page without exemplars, which only OpenMetrics has."""
    return _EXEMPLAR.sub("", text)


def _samples(text: str) -> list[Sample]:
    families = text_string_to_metric_families(text)
    return [Sample(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]
