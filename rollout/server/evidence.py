"""The judgement on one release, from the raw samples since its start.

State is kept between calls only to save work: a new object reads all samples again and gives the same judgement.
"""

import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from contract.deadline import left_s, until_s
from rollout.control.after_promotion import RecentFailures, Watch
from rollout.control.calibration import HISTORY_S
from rollout.errors import RolloutError, SourceUnreachable
from rollout.explain.format import date
from rollout.format import span
from rollout.judge import Judgement, Verdict
from rollout.judge.judge import Judge
from rollout.judge.own_noise import INDEPENDENT, of_counts
from rollout.judge.types import sum_of
from rollout.judge.windows import Windows
from rollout.server.questions import Plan
from rollout.signals.folding import SIDES, STALE_INTERVALS, Fold, RawSeries, bound_of, scrape_interval
from rollout.signals.growth import Side
from rollout.signals.profile import Names, Profile, SeriesOf
from rollout.sources.raw_samples import RawSamples, Wanted
from rollout.spec import RolloutSpec

MOST_S = 7 * 86400.0  # how far back the start of a release is searched
_READ_S = 1800.0  # samples are read in parts of this length, so that a long release needs no more memory
_LOOKS_S = (120.0, 1200.0)  # lengths of the samples that show the scrape interval; the second for rare scrapes
_EARLY_S = 300.0  # how much later than the search says the canary's first sample may be
_CLOCKS_APART_S = 30.0


class NeverSeen(RolloutError):
    """No sample of the canary was found."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The judge's current answer."""

    verdict: Verdict
    reason: str  # one sentence
    since_s: float | None = None  # when the canary was first seen, Unix seconds
    judgement: Judgement | None = None  # None: nothing could be judged
    notes: tuple[str, ...] = ()  # further information for a person


@dataclass(slots=True)
class _Judging:
    """A release that has started."""

    since_s: float
    fold: Fold
    history: list[Windows] = field(default_factory=list)  # windows from before the release, until `judge` begins
    judge: Judge | None = None
    watch: Watch | None = None
    recent: RecentFailures = field(default_factory=RecentFailures)


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of one reading."""

    judging: _Judging | str  # str: the reason why the release has not started yet
    now_s: float  # by the metric store's clock
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Reading:
    """A running reading; all questions that arrive meanwhile wait for it."""

    found: Future[_Found] = field(default_factory=Future)
    until_s: float = field(default_factory=until_s)  # the deadline of the question that started it, monotonic clock


class Evidence:
    """Everything counted about one release, and what it proves. Thread-safe."""

    def __init__(self, samples: RawSamples, profile: Profile, names: Names, plan: Plan, *, not_before_s: float) -> None:
        """
        Args:
            samples: the source of samples.
            profile: says which series count.
            names: identify the release.
            plan: the part of the plan that this profile can serve.
            not_before_s: the earliest possible start of the release, Unix seconds; -inf: unknown.
        """
        self._samples, self._profile, self._names, self._plan = samples, profile, names, plan
        self._not_before_s = not_before_s
        self._counters = plan.counters(profile)
        self._wanted = Wanted.of(profile, self._counters, names, names.stable, names.canary).with_starts()
        self._judging: _Judging | None = None
        self._changing = threading.Lock()  # guards the judged data
        self._asking = threading.Lock()  # guards `_reading`
        self._reading: _Reading | None = None  # the running one

    @property
    def spec(self) -> RolloutSpec:
        """The plan by which the release is judged."""
        return self._plan.spec

    @property
    def queries(self) -> dict[str, str]:
        """The PromQL query of each side."""
        versions = {"stable": self._names.stable, "canary": self._names.canary}
        return {side: str(self._requests_of(version)) for side, version in versions.items()}

    def answer(self, to_percent: float | None, *, own_clock_s: float) -> Answer:
        """Read new samples and judge. A question that arrives during a reading gets the result of that reading.

        Args:
            to_percent: the canary's next weight; None: the question is only whether it does harm.
            own_clock_s: Unix seconds by this machine's clock.

        Raises: SourceUnreachable, Uncountable.
        """
        found = self._found(own_clock_s)
        if isinstance(found.judging, str):
            return Answer(Verdict.NO_DATA, found.judging, notes=found.notes)
        with self._changing:
            return self._concluded(found.judging, to_percent, found.now_s, list(found.notes))

    def _found(self, own_clock_s: float, *, goes_on: bool = True) -> "_Found":
        """The result of a new reading, or of the running one.

        Args:
            goes_on: whether to read once more if the running reading fails because of its own deadline.
        """
        with self._asking:
            under_way = self._reading
            reading = self._reading = under_way or _Reading()
        if under_way:
            try:
                return under_way.found.result(left_s(threading.TIMEOUT_MAX))
            except TimeoutError as error:
                raise SourceUnreachable(
                    "Prometheus is still being read",
                    saw="another question about this release is also waiting for it",
                    do="nothing: ask again",
                ) from error
            except SourceUnreachable:
                if not goes_on or time.monotonic() < under_way.until_s or not left_s():
                    raise
            return self._found(own_clock_s, goes_on=False)
        try:
            try:
                found = self._read_new(own_clock_s)
            finally:
                with self._asking:
                    self._reading = None  # first, so that a waiting question that reads on does not join it again
        except BaseException as error:
            reading.found.set_exception(error)
            raise
        reading.found.set_result(found)
        return found

    def _read_new(self, own_clock_s: float) -> "_Found":
        now_s = self._samples.now_s()
        notes = tuple(self._clocks(now_s, own_clock_s))
        judging = self._judging or self._begun(now_s)
        if isinstance(judging, str):
            return _Found(judging, now_s, notes)
        self._judging = judging
        self._read(judging, now_s)
        return _Found(judging, now_s, notes)

    def _requests_of(self, version: str) -> Wanted:
        errors = [counter for counter in self._counters if counter.signal == "errors"]
        wanted = Wanted.of(self._profile, errors, self._names, version)
        return replace(wanted, names=wanted.names[:1]) if errors[0].is_whole else wanted

    def _begun(self, now_s: float) -> "_Judging | str":
        """The release from its start, or the reason why it has not started yet."""
        canary = self._requests_of(self._names.canary)
        began_s = self._samples.began_s(canary, until_s=now_s, longest_s=MOST_S)
        if began_s is None:
            raise self._never_seen(canary)
        began_s = max(began_s, self._not_before_s)
        first = self._samples.between(canary, began_s, min(now_s, began_s + _EARLY_S))
        times = [float(time_s) for series in first for time_s in series.times if time_s >= began_s]
        if not times:
            return f"no data: no request of the canary {self._names.canary} has been counted yet"
        since_s = min(times)
        look, interval_s = self._look(since_s, now_s)
        if interval_s is None:
            return "no data: three scrapes of one pod are needed to see how often pods are scraped"
        self._wanted = self._wanted.only_bounds(self._bounds(look))
        window_s = max(self._plan.spec.window, STALE_INTERVALS * interval_s)
        fold = Fold(
            self._profile,
            self._counters,
            self._names,
            origin_s=since_s,
            window_s=window_s,
            interval_s=interval_s,
            from_s=since_s - HISTORY_S,
        )
        return _Judging(since_s, fold)

    def _never_seen(self, canary: Wanted) -> NeverSeen:
        saw = f"nothing for `{canary}`"
        do = "check whether the pods are scraped, and whether the series have the profile's labels"
        if canary.left_out and self._samples.labels(f"{replace(canary, left_out=())}"):
            saw += ", except what the profile's `leave_out` leaves out"
            do = (
                "wait for its first request; if those are users' requests, ask with a profile that counts them, such "
                "as `istio-grpc` for gRPC"
            )
        return NeverSeen(f"no data: Prometheus has no requests of the canary {self._names.canary}", saw=saw, do=do)

    def _look(self, since_s: float, now_s: float) -> tuple[list[RawSeries], float | None]:
        """Samples around the start, and the scrape interval that they show; None: there are too few samples."""
        for look_s in _LOOKS_S:
            look = self._samples.between(self._wanted, since_s - look_s, min(now_s, since_s + look_s))
            interval_s = scrape_interval(look, self._profile.process)
            if interval_s is not None:
                break
        return look, interval_s

    def _bounds(self, look: Iterable[RawSeries]) -> set[str]:
        """The needed values of `le` among those seen: data planes have many more bounds than are judged."""
        return {
            series.labels["le"]
            for series in look
            for counter in self._counters
            if counter.of.name == series.labels["__name__"] and self._is_judged(counter, bound_of(series.labels))
        }

    def _is_judged(self, counter: SeriesOf, bound: float | None) -> bool:
        if bound is None:
            return False
        return math.isinf(bound) or self._plan.selection.name(counter.named(bound)) is not None

    def _read(self, judging: _Judging, now_s: float) -> None:
        """Fold and judge all samples that no longer change: the newest scrape may still be under way."""
        fold = judging.fold
        begin_s = fold.cursor_s
        is_judged = fold.border_before(now_s - fold.interval_s) <= begin_s
        if is_judged and self._silent(fold, now_s, SIDES) is None:
            return  # no window has ended since, so newer samples would change nothing
        try:
            with closing(self._samples.ahead(self._wanted, self._spans(fold, now_s))) as parts:
                for end_s, every in parts:
                    settled_s = end_s if end_s < now_s else now_s - fold.interval_s
                    with self._changing:
                        self._judge(judging, fold.extend(every, settled_s))
        except SourceUnreachable as error:
            if left_s() or fold.cursor_s == begin_s:
                raise
            raise SourceUnreachable(
                "the release has more samples than could be read in time",
                saw=f"samples until {date(fold.cursor_s)}, of {span(now_s - begin_s)} in all",
                do="nothing: the next question continues from there",
            ) from error

    @staticmethod
    def _spans(fold: Fold, now_s: float) -> Iterator[tuple[float, float]]:
        """The time left to read, in parts that end at the border between two windows."""
        begin_s = fold.cursor_s
        while True:
            end_s = fold.border_before(begin_s + _READ_S + fold.window_s)
            if end_s >= now_s:
                yield begin_s, now_s
                return
            yield begin_s, end_s
            begin_s = end_s

    def _judge(self, judging: _Judging, windows: Windows) -> None:
        wanted = self._plan.selection.of_arrays(windows)
        border = int(np.searchsorted(wanted.ends_s, judging.since_s, "right"))
        before, after = wanted.part(0, border), wanted.part(border, len(wanted))
        if judging.judge is None:
            judging.history.append(before)
        if judging.judge is None and judging.fold.cursor_s >= judging.since_s:
            self._begin(judging)
        if judging.judge is None or judging.watch is None:
            return
        judging.judge.observe(after)
        for window in after.of_signals(["errors"]):
            # Without requests to stable there is nothing to compare with: the canary has all the traffic.
            is_alone = not window.stable.total
            if is_alone:
                judging.watch.observe([window], judging.recent)
            judging.recent.add([window], is_alone=is_alone)

    def _begin(self, judging: _Judging) -> None:
        """Begin to judge, with stable's counts from before the release."""
        history, judging.history = Windows.joined(judging.history), []
        counted = {name: history.of_stable(place) for place, name in enumerate(history.signals)}
        noise = {name: of_counts(*counts) for name, counts in counted.items()}
        known = sum_of(counted.get("errors", ([], []))[0])
        judging.judge = Judge(self._plan.config, noise, {"errors": known})
        judging.watch = Watch(self._plan.spec, phi=noise.get("errors", INDEPENDENT).blips, known=known)

    def _concluded(self, judging: _Judging, to_percent: float | None, now_s: float, notes: list[str]) -> Answer:
        fold = judging.fold
        if fold.window_s > self._plan.spec.window:
            notes.append(
                f"pods are scraped every {span(fold.interval_s)}, so windows are {span(fold.window_s)} long and not "
                f"{span(self._plan.spec.window)}: each holds {STALE_INTERVALS} scrapes"
            )
        if judging.judge is None or judging.watch is None:
            return Answer(
                Verdict.NO_DATA, "no data: the first window has not ended yet", judging.since_s, None, tuple(notes)
            )
        asked = None if to_percent is None else to_percent / 100
        judgement = judging.judge.judgement(next_weight=asked, expected=self._plan.expected if asked else ())
        alone = judging.watch.judgement()
        if alone and alone.verdict is Verdict.FAIL and judgement.verdict is not Verdict.FAIL:
            judgement = alone
        verdict, reason = self._weighed(judgement)
        # After promotion stable's pods are gone, and the engine still asks whether there is harm.
        is_promoted = asked is None and alone is not None and "stable" in fold.newest_s
        sides = SIDES[1:] if is_promoted else SIDES
        if verdict is not Verdict.FAIL and (silent := self._silent(fold, now_s, sides)):
            verdict, reason = Verdict.NO_DATA, silent
        elif verdict is Verdict.NO_DATA and (query := self._missing(fold)):
            reason = (
                f"{reason}: Prometheus has no series for `{query}`; leave the signal out of the plan if there are none"
            )
        return Answer(verdict, reason, judging.since_s, judgement, tuple(notes))

    @staticmethod
    def _weighed(judgement: Judgement) -> tuple[Verdict, str]:
        """The verdict for an engine: if the plan asks a person to decide, it is not FAIL."""
        if judgement.verdict is Verdict.FAIL and judgement.on_fail == "hold":
            return Verdict.INCONCLUSIVE, f"a person decides, as the plan says: {judgement.reason}"
        return judgement.verdict, judgement.reason

    def _silent(self, fold: Fold, now_s: float, sides: Sequence[Side]) -> str | None:
        """The reason why the newest samples are too old to judge, or None."""
        for side in reversed(sides):
            age_s = now_s - fold.newest_s.get(side, -math.inf)
            if age_s > STALE_INTERVALS * fold.interval_s:
                query = self.queries[side]
                if math.isinf(age_s):
                    return f"no data: Prometheus has no series of {side}: nothing for `{query}`"
                return (
                    f"no data: the newest sample of {side} is {span(age_s)} old, and pods are scraped every "
                    f"{span(fold.interval_s)}: `{query}`"
                )
        return None

    def _missing(self, fold: Fold) -> Wanted | None:
        """The query that finds nothing, of the first needed signal without data; None: no signal is missing."""
        versions = {"canary": self._names.canary, "stable": self._names.stable}
        for side in reversed(SIDES):
            for signal in fold.lacking(side):
                if signal in self._plan.expected:
                    counters = [counter for counter in self._counters if counter.signal == signal]
                    return Wanted.of(self._profile, counters, self._names, versions[side])
        return None

    @staticmethod
    def _clocks(now_s: float, own_s: float) -> Iterable[str]:
        if abs(now_s - own_s) > _CLOCKS_APART_S:
            side = "behind" if now_s < own_s else "ahead of"
            yield f"Prometheus's clock is {span(abs(now_s - own_s))} {side} the judge's; Prometheus's is used"
