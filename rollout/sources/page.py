"""A metrics page as text: the samples that are wanted of it."""

import re
from collections.abc import Iterator, Sequence

from prometheus_client.parser import text_string_to_metric_families

from rollout.signals.counters import Sample

LARGEST_PAGE = 16 * 2**20  # bytes: of thousands of classes, or of the gateway with many segments, it has some MB
_LONGEST_LINE = 16_384  # letters; what reads the labels of a line takes four times as long for twice as many
_EXEMPLAR = re.compile(r"(?<=\S) # \{[^{}]*\} \S+( \S+)?$", re.MULTILINE)  # what OpenMetrics may write after a value


def parsed(text: str, series: Sequence[str], *, is_foreign: bool = False) -> list[Sample]:
    """The samples of the lines that begin with one of `series`; a line that is too long for one is left out.

    Args:
        is_foreign: the lines are somebody else's: where one cannot be read there are no samples of them.

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
    """The lines of a page, but for those that are too long for a sample."""
    # Not `splitlines`: a label may hold U+2028, which it takes for an end.
    return (line for line in text.split("\n") if len(line) <= _LONGEST_LINE)


def without_exemplars(text: str) -> str:
    """A page without what only OpenMetrics has."""
    return _EXEMPLAR.sub("", text)


def _samples(text: str) -> list[Sample]:
    families = text_string_to_metric_families(text)
    return [Sample(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]
