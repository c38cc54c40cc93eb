"""Says why a query finds nothing, from the series that exist under its names with other labels."""

import json
import re
from dataclasses import replace

from rollout.sources.raw_samples import RawSamples, Wanted

_BUCKETS = "_bucket"
_SHOWN = 5  # values of a label


def why_nothing(samples: RawSamples, wanted: Wanted) -> str:
    """The reason why a query finds nothing, in one sentence. Raises SourceUnreachable."""
    names = " or ".join(wanted.names)
    every = json.dumps("|".join(map(re.escape, wanted.names)))
    labels = ", ".join(label for label, _ in wanted.labels)
    there = samples.labels(f"count by ({labels}) ({{__name__=~{every}}})")
    if native := [name for name in wanted.names if name.endswith(_BUCKETS) and _is_native(samples, name, wanted)]:
        return (
            f"{native[0].removesuffix(_BUCKETS)} exists only as a native histogram, without buckets: let Prometheus "
            "also keep the classic buckets (`scrape_classic_histograms`, since 3.0 `always_scrape_classic_histograms`)"
        )
    if not there:
        return f"there is no series {names}: check whether the pods are scraped, and whether they export it"
    fitting: list[str] = []
    for label, values in wanted.labels:
        left = [each for each in there if each.get(label, "") in values]
        if not left:
            among = f" with {' and '.join(fitting)}" if fitting else ""
            return f"of {names}{among}, {label} is {_listed({each.get(label, '') for each in there})}"
        there = left
        fitting.append(f"{label} {' or '.join(values)}")
    return "its series exist, but none of them counts: check what the profile leaves out"


def _is_native(samples: RawSamples, buckets: str, wanted: Wanted) -> bool:
    """Whether a histogram exists under its plain name. A histogram with buckets never does."""
    return bool(samples.labels(f"count({replace(wanted, names=(buckets.removesuffix(_BUCKETS),))})"))


def _listed(values: set[str]) -> str:
    """Some of a label's values, in words."""
    named = [json.dumps(value) for value in sorted(values - {""})]
    more = [f"{len(named) - _SHOWN} more"] if len(named) > _SHOWN else []
    words = " or ".join([*named[:_SHOWN], *more])
    if "" not in values:
        return words
    return f"missing, or is {words}" if words else "missing"
