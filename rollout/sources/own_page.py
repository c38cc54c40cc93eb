"""Checks whether the user's own signals can be counted from the current metrics page."""

import difflib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from contract import loopback
from rollout.errors import SourceUnreachable
from rollout.fleet import Backend
from rollout.signals.custom import Bound, CustomSignal, Mean, Page, Series, Share, buckets, total_of
from rollout.signals.selectors import Selector
from rollout.sources.page import LARGEST_PAGE, lines, without_exemplars

_NEAR = 3  # similar names that are suggested for a missing one
_SHOWN = 12  # values that are listed
_FALLS = ("gauge", "info", "stateset")  # types whose values may fall


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with one signal, for a person."""

    signal: str
    saw: str
    do: str
    is_certain: bool = True  # False: it may come with the first event


def look(backend: Backend, own: Mapping[str, CustomSignal], *, timeout_s: float = 2.0) -> list[Finding]:
    """The problems with these signals on the page of one process. Raises SourceUnreachable."""
    http = loopback.client(timeout_s=timeout_s, headers=backend.headers)
    try:
        url = f"{backend.url}{backend.metrics_path}"
        page = loopback.whole(http, url, most=LARGEST_PAGE).raise_for_status()
        return list(findings(page.content.decode(errors="replace"), own))
    except (httpx.HTTPError, ValueError) as error:
        raise SourceUnreachable(
            f"{backend.tag} gives no metrics that can be read",
            saw=f"{error!r} from {backend.url}{backend.metrics_path}",
            do="let it answer there in Prometheus's text format",
        ) from error
    finally:
        http.close()


def findings(text: str, own: Mapping[str, CustomSignal]) -> Iterator[Finding]:
    """The problems with these signals on a page. Raises ValueError if the page cannot be read."""
    page = _Whole(text)
    for name, options in own.items():
        match options.counter.counted:
            case Share() as share:
                yield from _of_share(name, share, page)
            case Bound() | Mean() as counted:
                yield from _of_histogram(name, counted, page)


class _Whole:
    """A page with the types of its series."""

    def __init__(self, text: str) -> None:
        samples: defaultdict[str, list[Series]] = defaultdict(list)
        self.types: dict[str, str] = {}
        for family in text_string_to_metric_families(without_exemplars("\n".join(lines(text)))):
            for name in _series_of(family):
                self.types[name] = family.type
            for sample in family.samples:
                self.types[sample.name] = family.type
                samples[sample.name].append((sample.labels, sample.value))
        self.samples: Page = samples

    @property
    def histograms(self) -> list[str]:
        return [name.removesuffix("_bucket") for name in self.types if name.endswith("_bucket")]


def _series_of(family: Metric) -> Iterator[str]:
    """The names of the series that a family without samples will have."""
    if family.type == "counter":
        yield f"{family.name}_total"
    elif family.type == "histogram":
        yield f"{family.name}_bucket"
    elif family.type in _FALLS:
        yield family.name


def _of_share(name: str, share: Share, page: _Whole) -> Iterator[Finding]:
    found = [*_of_counter(name, share.of, page, list(page.types), is_needed=True)]
    found += _of_counter(name, share.part, page, list(page.types), is_needed=False)
    yield from found
    part, total = total_of(page.samples, share.part), total_of(page.samples, share.of)
    if not found and part is not None and total is not None and part > total:
        saw = f"`{share.part.name}` has counted {part:g}, more than the {total:g} of `{share.of.name}`"
        yield Finding(name, saw, "name the counter of all events in `of`")


def _of_counter(name: str, wanted: Selector, page: _Whole, known: list[str], *, is_needed: bool) -> Iterator[Finding]:
    if wanted.name not in page.types:
        yield _absent(name, wanted.name, known, is_certain=is_needed)
    elif page.types[wanted.name] in _FALLS:
        saw = f"`{wanted.name}` is a {page.types[wanted.name]}, which may fall"
        yield Finding(name, saw, "name a counter of what has happened since the process started")
    elif not page.samples.get(wanted.name):
        if is_needed:
            yield Finding(name, f"`{wanted.name}` has no series yet", "it may appear with traffic", is_certain=False)
    elif (total := total_of(page.samples, wanted)) is None:
        yield _other_labels(name, wanted, page, is_certain=is_needed)
    elif not math.isfinite(total) or total < 0:
        yield Finding(name, f"`{wanted.name}` is {total:g}", "let it count events, from 0")


def _of_histogram(name: str, counted: Bound | Mean, page: _Whole) -> Iterator[Finding]:
    wanted = counted.histogram
    series = Selector(f"{wanted.name}_bucket", wanted.matchers)
    if series.name not in page.types:
        if wanted.name in page.types:
            saw = f"`{wanted.name}` is a {page.types[wanted.name]}, and has no buckets"
            yield Finding(name, saw, _near("name a histogram", wanted.name, page.histograms))
        else:
            yield _absent(name, wanted.name, page.histograms, is_certain=True)
        return
    if problems := [*_of_counter(name, series, page, page.histograms, is_needed=True)]:
        yield from problems
        return
    bounds = sorted(bound for bound in buckets(page.samples, wanted) if bound < math.inf)
    listed = _listed([f"{bound:g}" for bound in bounds])
    if isinstance(counted, Bound) and counted.bound not in bounds:
        yield Finding(name, f"`{wanted.name}` has no bound {counted.bound:g}", f"choose one of its bounds: {listed}")
    if isinstance(counted, Mean) and not any(counted.low < bound < counted.high for bound in bounds):
        saw = f"`{wanted.name}` has no bound between {counted.low:g} and {counted.high:g}"
        yield Finding(name, saw, f"choose `between` so that it contains some of its bounds: {listed}")


def _absent(signal: str, name: str, known: list[str], *, is_certain: bool) -> Finding:
    do = "write a name that exists" if is_certain else "if it is right, its series appears with the first event"
    return Finding(signal, f"there is no `{name}` on the page", _near(do, name, known), is_certain=is_certain)


def _near(do: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=_NEAR)
    return f"{do}; similar names: {', '.join(f'`{each}`' for each in near)}" if near else do


def _other_labels(signal: str, wanted: Selector, page: _Whole, *, is_certain: bool) -> Finding:
    asked = [matcher.label for matcher in wanted.matchers]
    values = {label: sorted({labels.get(label, "") for labels, _ in page.samples[wanted.name]}) for label in asked}
    there = "; ".join(f"{label} is {_listed([repr(value) for value in some])}" for label, some in values.items())
    do = "correct them" if is_certain else "if they are right, the series appears with the first event"
    return Finding(signal, f"no series of `{wanted.name}` has these labels", f"{do}: {there}", is_certain=is_certain)


def _listed(values: list[str]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(values[:_SHOWN]) + more
