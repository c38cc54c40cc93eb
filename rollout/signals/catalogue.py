"""The catalogue of signals: one row holds everything about a signal.

The name in a row is the signal's name everywhere: in plans, counters, evidence, files for `kanaria judge`, the report
and the boards. A name with a key (`latency:100`, `class:7`) is one signal of a family; a row describes the family.
To add a signal, add its row, make sure that its events are counted, and add a row to docs/rollout-yaml.md.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from contract import metrics as m
from contract.own_answers import CONFIDENCE, LABEL, NUMBER
from rollout.judge.types import NumberRule, SignalRule, SignalWords
from rollout.signals.counting import (
    GATEWAY_DURATION_MS,
    GATEWAY_REQUESTS,
    SAVED,
    Buckets,
    Counter,
    EachValue,
    KeyedOutcomes,
    Outcomes,
    OutcomesByKey,
    Side,
    Steps,
)
from rollout.signals.options import (
    CONFIDENCE_BOUNDS,
    LABELS_BY_CALLER,
    LABELS_CAME,
    LABELS_OF_AGE,
    LABELS_OF_AGE_BY_CALLER,
    LATENCY_BOUNDS_MS,
    LATENCY_STEPS_MS,
    PAIRED_BY_CALLER,
    STEPS_PER_TENFOLD,
    ByRoute,
    BySegment,
    Classes,
    Disagreement,
    Errors,
    Latency,
    LowConfidence,
    Options,
    PairedLabel,
    Rejected,
    Tolerant,
    TypicalLatency,
    WrongLabel,
)

SEGMENT = "segment"
AFFECTED_USERS = "affected_users"
PAIRED = ("paired_label", "disagreement")  # of requests that both versions answered
WATCHED_ERRORS = "watched_errors"
ANSWERED_ELSEWHERE = "answered_elsewhere"  # errors that no user saw, because the other version answered; shown only
WATCHED_TOLERANCE = 2.0  # error ratios may double or halve within half an hour, but rarely within minutes

_WHAT_IT_SAYS = frozenset((LABEL, NUMBER))

_PINK, _GREEN, _BLUE, _GREY, _OLIVE, _VIOLET = "#cc79a7", "#009e73", "#56b4e9", "#76808b", "#a38f00", "#7b61c9"
_VERMILION, _ORANGE, _BROWN, _TEAL, _SKY = "#d55e00", "#e69f00", "#8c510a", "#0a7f8f", "#4a6fa5"

# What the version calls the client's mistake: all 4xx but those about who asks (401, 403) and when (408, 429). No
# lookahead, because Prometheus has none.
_REFUSED = "4(0[024-79]|1[0-9]|2[0-8]|[3-9][0-9])"


PictureForm = Literal["over time", "by key", "the good ones", "against its limit", "mean over time"]


@dataclass(frozen=True, slots=True)
class ReportPicture:
    """How the report draws a signal's counts of the whole release."""

    form: PictureForm
    title: str
    caption: str = ""  # text before the numbers
    bar: str = "{key}"  # label under the bar of one key
    has_numbers: bool = False  # each bar has its number above it


@dataclass(frozen=True, slots=True)
class BoardGraph:
    """How the release's board draws a signal: canary beside stable."""

    title: str
    description: str  # what it shows, what is usual, what an unusual value means
    warn: float = 0.1  # share from which it is coloured as a warning
    bad: float = 0.3  # share from which it is coloured as bad
    key: str = ""  # the key to draw, where there are several
    runbook: str = "KanariaReleaseDrift"  # the alert whose runbook the board links


@dataclass(frozen=True, slots=True)
class Signal:
    """One row of the catalogue."""

    name: str
    words: SignalWords
    advice: str  # what to do about a version that was rolled back because of it; may hold `{key}` and `{stable}`
    colour: str  # in every picture; distinguishable with any colour vision (after Okabe & Ito)
    counter: Counter | None = None  # None: computed from other signals' events
    other_counters: Mapping[str, Counter] = field(default_factory=dict)  # by name in readings; options may select one
    judged: SignalRule | None = None  # its rule, before a plan's options; None: its rules are made elsewhere
    options: type[Options] = Tolerant  # its options in plans
    former_name: str = ""  # still accepted in plans
    has_keys: bool = False  # its names in the evidence have keys, as in `latency:100`
    is_expected: bool = False  # no step passes before the canary has counts of it
    is_of_copies: bool = False  # counted, and expected, while both versions answer some requests
    is_observed: bool = False  # the observer counts it for versions that do not count it themselves ...
    read_from: frozenset[str] = frozenset()  # ... if the plan says how to read one of these parts of an answer
    is_optional: bool = True  # plans may leave it out
    is_of_callers: bool = False  # one caller can cause any number: where callers are sticky, only copies are judged
    advice_if_fewer: str = ""  # used where the canary has fewer of them than stable
    picture: ReportPicture | None = None
    graph: BoardGraph | None = None

    def __post_init__(self) -> None:
        if self.counter is not None and self.judged is None:
            raise ValueError(f"signal {self.name}: a signal with a counter needs a rule")

    @property
    def is_partition(self) -> bool:
        """Every event has exactly one key, so that all keys share one total."""
        return isinstance(self.counter, EachValue)

    def rule(self, options: Options) -> SignalRule:
        """The judge's rule under a plan's options. Raises: ValueError for a signal that plans cannot name."""
        if self.judged is None:
            raise ValueError(f"signal {self.name} has no rule of its own")
        return replace(options.rule(self.judged), words=self.words)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """All signals, in display order."""

    rows: tuple[Signal, ...]

    def __post_init__(self) -> None:
        names = [name for row in self.rows for name in (row.name, row.former_name, *row.other_counters) if name]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each signal needs its own name; used twice: {', '.join(twice)}")

    def with_rows(self, *rows: Signal) -> "Catalogue":
        """This catalogue and more signals."""
        return Catalogue((*self.rows, *rows))

    def of(self, signal: str) -> Signal | None:
        """The row of a signal or of a family; None for an unknown one, such as one from another version's ledger."""
        return self._by_name.get(signal.partition(":")[0])

    def words(self, signal: str, *, key: str = "", stable: str = "stable") -> SignalWords:
        """The words for a signal.

        Args:
            key: the key for the family's words, where the name has none.
            stable: the name of the version compared with.
        """
        row = self.of(signal)
        if row is None:
            return SignalWords(signal, "events", f"were `{signal}`")
        return row.words.of(signal.partition(":")[2] or key, stable=stable)

    @cached_property
    def partitions(self) -> frozenset[str]:
        """The names of all families of which every event has exactly one key; cached, because it is read very often."""
        return frozenset(name for name, row in self._by_name.items() if row.is_partition)

    @cached_property
    def in_plans(self) -> Mapping[str, Signal]:
        """The signals that a plan can name, by name."""
        return {row.name: row for row in self.rows if row.counter is not None}

    @cached_property
    def rules(self) -> Mapping[str, SignalRule]:
        """The rules for counts without a plan: a plan's defaults, but never `hold`: there is no release to hold."""
        return {
            name: replace(row.rule(row.options()), on_fail="rollback", gross_tolerance=None, gross_margin=None)
            for name, row in self.in_plans.items()
        }

    @cached_property
    def counted(self) -> Mapping[tuple[str, str], tuple[tuple[str, Counter], ...]]:
        """The counters made from each series, by the series' name and the label (or labels) that sort its events.

        Each counter comes with its name in readings, without the key.
        """
        counted: dict[tuple[str, str], tuple[tuple[str, Counter], ...]] = {}
        for row in self.rows:
            own = {row.name: row.counter} if row.counter is not None else {}
            for name, counter in (*own.items(), *row.other_counters.items()):
                place = counter.series, counter.label
                counted[place] = (*counted.get(place, ()), (name, counter))
        return counted

    @cached_property
    def steps(self) -> Mapping[str, Steps]:
        """The counters of signals whose events are numbers, by signal."""
        return {row.name: row.counter for row in self.rows if isinstance(row.counter, Steps)}

    @cached_property
    def of_versions(self) -> tuple[tuple[str, str], ...]:
        """The series, and their labels, on the metrics pages of the versions: all but the gateway's."""
        return tuple(
            place
            for place, signals in self.counted.items()
            if any(counter.side is not Side.GATEWAY for _, counter in signals)
        )

    @cached_property
    def _by_name(self) -> Mapping[str, Signal]:
        return {row.name: row for row in self.rows}


BUILT_IN = Catalogue(
    (
        Signal(
            name="errors",
            words=SignalWords("errors", "requests", "failed"),
            advice="Find the failed requests in the canary's log (`x-request-id`), fix the cause, build a new version.",
            colour=_PINK,
            counter=Outcomes(Side.GATEWAY, GATEWAY_REQUESTS, "code", bad="5.."),
            other_counters={ANSWERED_ELSEWHERE: Outcomes(Side.GATEWAY, GATEWAY_REQUESTS, "code", bad=SAVED)},
            judged=SignalRule(kernel="rare", weight=0.4, budgeted=True, is_bad_answer=True),
            options=Errors,
            is_expected=True,
            is_optional=False,  # the guard and the proof of every step need them
            picture=ReportPicture("over time", "Failed requests", "Share of requests that failed, over time."),
            graph=BoardGraph(
                "Failed",
                "Share answered 5xx, timeouts and lost connections included.",
                warn=0.01,
                bad=0.2,
                runbook="KanariaAvailabilityBurnedByVersion",
            ),
        ),
        Signal(
            name="rejected",
            words=SignalWords("rejected", "requests", "were rejected (4xx)"),
            advice="Send it requests that {stable} accepts; its log has those that it refused (`x-request-id`). If it "
            "is right to refuse them, leave the signal out: `signals.rejected: null`.",
            colour=_ORANGE,
            counter=Outcomes(Side.GATEWAY, GATEWAY_REQUESTS, "code", bad=_REFUSED, untold="[1-4]xx"),
            judged=SignalRule(kernel="exact", weight=0.1, is_bad_answer=True),
            options=Rejected,
            is_of_callers=True,
            picture=ReportPicture("over time", "Rejected requests", "Share of requests that were rejected, over time."),
            graph=BoardGraph(
                "Rejected",
                "Share answered 4xx, except 401, 403, 408 and 429. Both versions reject wrong requests; a canary above "
                "stable also rejects requests that stable accepts.",
                warn=0.05,
                bad=0.2,
                runbook="KanariaRejectsMore",
            ),
        ),
        Signal(
            name="route",
            words=SignalWords(
                "bad answers of {key}",
                "requests",
                "failed or were rejected at `{key}`",
                family_title="bad answers by route",
                family_event="failed or were rejected",
                place="at `{key}`",
            ),
            advice="Send requests to `{key}` and compare its answers with {stable}'s; its log has those that failed "
            "(`x-request-id`).",
            colour=_TEAL,
            counter=OutcomesByKey(Side.GATEWAY, GATEWAY_REQUESTS, "route", "code", bad=f"5..|{_REFUSED}"),
            judged=SignalRule(kernel="exact", weight=0.1),
            options=ByRoute,
            has_keys=True,
            is_of_callers=True,
            picture=ReportPicture("by key", "Bad answers by route", "Share of each route's requests that were bad."),
        ),
        Signal(
            name=SEGMENT,  # where a plan defines segments
            words=SignalWords(
                "bad answers in segment {key}",
                "requests",
                "failed or were rejected in segment `{key}`",
                family_title="bad answers by segment",
                family_event="failed or were rejected",
                place="in segment `{key}`",
            ),
            advice="Send requests of segment `{key}` and compare its answers with {stable}'s; its log has those that "
            "failed (`x-request-id`).",
            colour=_SKY,
            counter=OutcomesByKey(Side.GATEWAY, GATEWAY_REQUESTS, "segment", "code", bad=f"5..|{_REFUSED}"),
            judged=SignalRule(kernel="exact", weight=0.1),
            options=BySegment,
            has_keys=True,
            is_of_callers=True,
            picture=ReportPicture(
                "by key", "Bad answers by segment", "Share of each segment's requests that were bad."
            ),
        ),
        Signal(
            name=AFFECTED_USERS,  # replaces the errors where callers are sticky
            words=SignalWords("users affected", "requests", "were the first failure of their user"),
            advice="Find these users' failed requests in the canary's log (`x-request-id`) and what they all share.",
            colour=_PINK,
        ),
        Signal(
            name=WATCHED_ERRORS,  # replaces the errors once the canary has all the traffic
            words=SignalWords("errors with all traffic", "requests", "failed"),
            advice="Find in its log what changed after promotion: its load, its inputs or what it depends on.",
            colour=_PINK,
        ),
        Signal(
            name="latency",
            words=SignalWords(
                "slower than {key} ms",
                "requests",
                "took longer than {key} ms",
                family_title="latency",
                family_event="were slow",
            ),
            advice="Load the version alone and compare its answer times with stable's before the next try.",
            colour=_GREEN,
            counter=Buckets(Side.GATEWAY, GATEWAY_DURATION_MS, LATENCY_BOUNDS_MS, bad="above"),
            judged=SignalRule(kernel="exact", weight=0.15),
            options=Latency,
            has_keys=True,
            is_expected=True,
            picture=ReportPicture(
                "by key",
                "Slow answers",
                "Share of answers slower than each bound.",
                bar="> {key} ms",
                has_numbers=True,
            ),
            graph=BoardGraph(
                "Slower than 100 ms",
                "Share of requests above this bucket bound. It is exact, and it is what the latency signals compare.",
                warn=0.05,
                bad=0.2,
                key="100",
                runbook="KanariaLatencyBurnedByVersion",
            ),
        ),
        Signal(
            name="typical_latency",
            words=SignalWords("typical latency", "answers", "took long"),
            advice="Load the version alone and compare its answer times with stable's before the next try.",
            colour=_VERMILION,
            counter=Steps(Side.GATEWAY, GATEWAY_DURATION_MS, LATENCY_STEPS_MS),
            judged=SignalRule(
                kernel="means",
                weight=0.1,
                numbers=NumberRule(
                    (0.0, float(len(LATENCY_STEPS_MS))), unit="ms", per_tenfold=STEPS_PER_TENFOLD, one=0.5
                ),
            ),
            options=TypicalLatency,
            picture=ReportPicture(
                "mean over time", "How long answers took", "Geometric mean of all answer times, over time."
            ),
            graph=BoardGraph(
                "Half are answered within",
                "The median, interpolated between the gateway's bounds, which are 12 % apart. The signal compares the "
                "geometric mean, which is near it.",
                warn=100,
                bad=250,
                runbook="KanariaLatencyBurnedByVersion",
            ),
        ),
        Signal(
            name="class",
            words=SignalWords(
                'predicted "{key}"',
                "predictions",
                'were "{key}"',
                family_title="predicted classes",
                family_event="were made",
            ),
            advice='Look at the inputs that it answers with "{key}": {stable} answers many of them differently.',
            advice_if_fewer='Try it on inputs that {stable} answers with "{key}": it misses them.',
            colour=_BLUE,
            counter=EachValue(Side.SERVICE, m.PREDICTIONS.name, "label"),
            judged=SignalRule(kernel="exact", weight=0.15, two_sided=True, is_only_different=True),
            options=Classes,
            read_from=_WHAT_IT_SAYS,
            former_name="predictions",
            has_keys=True,
            is_expected=True,
            picture=ReportPicture("by key", "What was predicted", "Share of each class among the predictions."),
            graph=BoardGraph(
                "Predicted classes",
                "Share of each class among a version's answers, over the time shown. Bars of one class "
                "should be equally long; a version that hardly ever predicts a class has unlearned it.",
            ),
        ),
        Signal(
            name="low_confidence",
            words=SignalWords(
                "confidence < {key}",
                "predictions",
                "had a confidence under {key}",
                family_title="low confidence",
                family_event="had low confidence",
            ),
            advice="Look at the inputs it is unsure of: its weights or preprocessing may differ from training.",
            colour=_GREY,
            counter=Buckets(Side.SERVICE, m.CONFIDENCE.name, CONFIDENCE_BOUNDS, bad="within"),
            judged=SignalRule(kernel="exact", weight=0.1, is_only_different=True),
            options=LowConfidence,
            read_from=frozenset((CONFIDENCE,)),
            graph=BoardGraph(
                "Confidence under 0.5",
                "Share of answers. A canary that is unsure where stable is sure has learned something different.",
                key="0.5",
            ),
        ),
        Signal(
            name="wrong_label",
            words=SignalWords(
                "wrong by label, {key} old",
                "labelled predictions",
                "were wrong",
                family_title="wrong by label",
            ),
            advice="Evaluate it on the newest labelled inputs: there it is worse than stable.",
            colour=_OLIVE,
            counter=Outcomes(Side.SERVICE, m.FEEDBACK.name, "outcome", bad=m.WRONG),
            other_counters={
                LABELS_OF_AGE: KeyedOutcomes(
                    Side.SERVICE, m.LABELS.name, "age_s", "outcome", bad=m.WRONG, good=m.CORRECT
                ),
                LABELS_BY_CALLER: KeyedOutcomes(
                    Side.SERVICE, m.FEEDBACK.name, "caller", "outcome", bad=m.WRONG, good=m.CORRECT
                ),
                LABELS_OF_AGE_BY_CALLER: KeyedOutcomes(
                    Side.SERVICE, m.LABELS.name, "age_s,caller", "outcome", bad=m.WRONG, good=m.CORRECT
                ),
                LABELS_CAME: KeyedOutcomes(Side.SERVICE, m.LABELS.name, "age_s", "outcome", bad=m.LATE, good=m.CAME),
            },
            judged=SignalRule(kernel="exact", weight=0.1, is_of_labels=True),
            options=WrongLabel,
            read_from=_WHAT_IT_SAYS,
            former_name="labels",
            picture=ReportPicture(
                "the good ones", "Right answers", "Where the truth came back: share of the predictions that were right."
            ),
            graph=BoardGraph(
                "Wrong labels",
                "Share of the answers whose true label came later through /feedback, by the version that answered, "
                "as they come. A young canary lacks labels that take long to arrive; for a fair comparison set `after` "
                "in the plan.",
                runbook="KanariaQualityBurnedByVersion",
            ),
        ),
        Signal(
            name="paired_label",
            words=SignalWords(
                "wrong where only one is right",
                "labelled answers that tell the two apart",
                "were wrong where {stable}'s were right",
            ),
            advice="Look at the labelled inputs that {stable} answers right and it does not.",
            colour=_BROWN,
            counter=Outcomes(Side.SERVICE, m.PAIRED_LABELS.name, "outcome", bad=m.WORSE),
            other_counters={
                PAIRED_BY_CALLER: KeyedOutcomes(
                    Side.SERVICE, m.PAIRED_LABELS.name, "caller", "outcome", bad=m.WORSE, good=m.BETTER
                )
            },
            judged=SignalRule(kernel="bounded", weight=0.1, is_of_labels=True, tells_better=True),
            options=PairedLabel,
            read_from=_WHAT_IT_SAYS,
            picture=ReportPicture("against its limit", "Wrong where only one of the two was right"),
        ),
        Signal(
            name="disagreement",
            words=SignalWords("unlike stable", "answers to copied requests", "differ from {stable}'s"),
            advice="Compare its answers with stable's on the same inputs. If its own are right, allow a larger share: "
            "`signals.disagreement.at_most`.",
            colour=_VIOLET,
            counter=Outcomes(Side.SERVICE, m.DISAGREEMENT.name, "outcome", bad=m.DIFFERENT),
            judged=SignalRule(kernel="bounded", weight=0.1, is_only_different=True, is_to_be_proven=True),
            options=Disagreement,
            is_of_copies=True,
            is_observed=True,
            picture=ReportPicture("against its limit", "Answers unlike stable's"),
            graph=BoardGraph(
                "Answers unlike stable's",
                "Share of the requests asked of both versions that they answered differently: in the shadow step, and "
                "in the steps where the plan has `compare`. A better model differs too; "
                "`signals.disagreement.at_most` in the plan sets the limit.",
                bad=0.2,
            ),
        ),
    )
)

_present = BUILT_IN


def catalogue() -> Catalogue:
    """The catalogue in use in this process."""
    return _present


@contextmanager
def using(other: Catalogue) -> Iterator[Catalogue]:
    """Use `other` as the catalogue in this process. Enter it before a plan or a ledger is read."""
    global _present  # noqa: PLW0603 - the one place where the catalogue is chosen
    before, _present = _present, other
    try:
        yield other
    finally:
        _present = before
