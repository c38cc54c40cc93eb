"""Counters become windows of new events. Each event counts once, whatever happens to the counting processes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge.types import BothPairs, Pair, Window
from rollout.routers.envoy.metrics import EnvoyMetrics
from rollout.signals import counters as c
from rollout.signals.catalogue import ANSWERED_ELSEWHERE, BUILT_IN, Catalogue, using
from rollout.signals.counters import Reading, Sample, SeriesKey, merge, version_tables, windows
from rollout.signals.options import LATENCY_STEPS_MS, Latency, LowConfidence, WrongLabel
from rollout.signals.plan import Signals

GATEWAY = "127.0.0.1:9901"
STABLE, CANARY = "digits:v1", "digits:v2"
SIGNALS = ("errors", "latency", "class", "low_confidence", "wrong_label", "disagreement")


def counters(samples: list[Sample], *, mirrored: str | None = None) -> dict[SeriesKey, Pair]:
    """The counters of the gateway's page."""
    return c.counters(EnvoyMetrics(GATEWAY).tables(samples, mirrored=mirrored))


def sample(name: str, value: float, **labels: str) -> Sample:
    return Sample(name, labels, value)


def request_samples(version: str, *, routed: str | None = None, **codes: int) -> list[Sample]:
    """`c200=3` means three answers with status 200."""
    return [
        sample("envoy_kanaria_predict_total", count, version=version, routed=routed or version, code=code[1:])
        for code, count in codes.items()
    ]


def buckets(name: str, within: Mapping[str, int], **labels: str) -> list[Sample]:
    return [sample(f"{name}_bucket", count, le=le, **labels) for le, count in within.items()]


def reading(at_s: float, pairs: Mapping[SeriesKey, tuple[int, int]]) -> Reading:
    return Reading(at_s=at_s, counters={key: Pair(*pair) for key, pair in pairs.items()})


def judged(previous: Reading, current: Reading) -> dict[str, tuple[Pair, Pair]]:
    return {w.signal: (w.stable, w.canary) for w in windows(previous, current, stable=STABLE, canary=CANARY)}


@pytest.fixture(autouse=True, scope="module")
def _these_signals() -> Iterator[None]:
    """Tests compare everything that these signals make of a series; a signal that is added later must not matter."""
    rows = tuple(row for row in BUILT_IN.rows if row.name in SIGNALS)
    assert len(rows) == len(SIGNALS)
    with using(Catalogue(rows)):
        yield


def test_errors_are_5xx_of_answered_requests() -> None:
    """Code 0 means that the client hung up and got no answer; 422 is a correct refusal of an input."""
    samples = request_samples(CANARY, c200=90, c422=5, c500=3, c504=2, c0=7)
    found = counters(samples)
    assert found == {(GATEWAY, CANARY, "errors"): Pair(5, 100), (GATEWAY, CANARY, ANSWERED_ELSEWHERE): Pair(0, 100)}


def test_a_request_answered_by_the_fallback_counts_for_no_version() -> None:
    """It was sent to the canary and answered by stable."""
    samples = [*request_samples(STABLE, c200=10), *request_samples(STABLE, routed=CANARY, c200=50, c503=50)]
    found = counters(samples)
    assert found == {(GATEWAY, STABLE, "errors"): Pair(0, 10), (GATEWAY, STABLE, ANSWERED_ELSEWHERE): Pair(0, 10)}


def test_latency_counts_what_is_slower_than_each_bound() -> None:
    """Buckets are cumulative: slower than 25 ms is everything outside the 25 ms bucket."""
    within = {"25": 60, "100": 95, "+Inf": 100}
    samples = buckets("envoy_kanaria_predict_duration_ms", within, version=CANARY, routed=CANARY)
    assert counters(samples) == {
        (GATEWAY, CANARY, "latency:25"): Pair(40, 100),
        (GATEWAY, CANARY, "latency:100"): Pair(5, 100),
    }


def test_copied_requests_are_read_for_the_mirrored_version_only() -> None:
    """Shadow clusters of other versions, and clusters that are not a shadow, are not read."""
    names = ("shadow%2Fdigits%3Av2", "shadow%2Fdigits%3Av9", "digits%3Av2")
    samples = [
        sample("envoy_cluster_upstream_rq", 7, envoy_cluster_name=name, envoy_response_code=code)
        for name in names
        for code in ("200", "503")
    ]
    assert counters(samples) == {}
    copied = counters(samples, mirrored=CANARY)
    shadow = f"{GATEWAY}/shadow"
    assert copied == {(shadow, CANARY, "errors"): Pair(7, 14), (shadow, CANARY, ANSWERED_ELSEWHERE): Pair(0, 14)}


def test_a_new_release_does_not_count_errors_of_an_earlier_one() -> None:
    """Going from shadow to live traffic does not bring back errors of an earlier attempt."""
    old = request_samples(CANARY, c200=400, c500=100)
    copies = sample(
        "envoy_cluster_upstream_rq", 50, envoy_cluster_name="shadow%2Fdigits%3Av2", envoy_response_code="200"
    )
    shadow = Reading(0.0, counters([*old, copies], mirrored=CANARY))
    live = Reading(5.0, counters(request_samples(CANARY, c200=410, c500=100)))
    grew = Pair(0, 0), Pair(0, 10)
    assert judged(shadow, merge(shadow, live)) == {"errors": grew, ANSWERED_ELSEWHERE: grew}


def test_predictions_confidence_and_feedback_are_read_from_the_service() -> None:
    """Each class out of all rows, rows under each confidence bound, wrong ones out of all known outcomes."""
    samples = [
        sample("kanaria_predictions_total", 30, version=CANARY, label="0"),
        sample("kanaria_predictions_total", 70, version=CANARY, label="1"),
        *buckets("kanaria_confidence", {"0.5": 4, "0.9": 60, "+Inf": 100}, version=CANARY),
        sample("kanaria_feedback_total", 5, version=STABLE, outcome="correct", caller="shop"),
        sample("kanaria_feedback_total", 3, version=STABLE, outcome="correct"),
        sample("kanaria_feedback_total", 2, version=STABLE, outcome="wrong", caller="shop"),
        sample("kanaria_disagreement_total", 30, version=CANARY, outcome="same"),
        sample("kanaria_disagreement_total", 20, version=CANARY, outcome="different"),
    ]
    service = "127.0.0.1:3002"
    found = c.counters(version_tables(service, samples))
    assert found == {
        (service, CANARY, "class:0"): Pair(30, 100),
        (service, CANARY, "class:1"): Pair(70, 100),
        (service, CANARY, "low_confidence:0.5"): Pair(4, 100),
        (service, CANARY, "low_confidence:0.9"): Pair(60, 100),
        (service, STABLE, "wrong_label"): Pair(2, 10),
        (service, STABLE, "labels_by_caller:shop"): Pair(2, 7),
        (service, STABLE, 'labels_by_caller:""'): Pair(0, 3),
        (service, CANARY, "disagreement"): Pair(20, 50),
    }


def label_samples(version: str, **counts: int) -> list[Sample]:
    """Labels by outcome and age; `wrong_600=3` means three wrong labels of ten minutes."""
    return [
        sample("kanaria_labels_total", count, version=version, outcome=name.split("_")[0], age_s=name.split("_")[1])
        for name, count in counts.items()
    ]


def test_labels_count_at_their_age() -> None:
    """At an age of ten minutes, labels of answers that old are evidence; of the others only the arrival is known."""
    old = label_samples(
        CANARY, came_600=9, late_600=1, wrong_600=2, correct_600=3, came_60=10, wrong_60=4, correct_60=6
    )
    found = c.counters(version_tables("a", old))
    assert found == {
        ("a", CANARY, "labels_of_age:600"): Pair(2, 5),
        ("a", CANARY, "labels_of_age:60"): Pair(4, 10),
        ("a", CANARY, "labels_came:600"): Pair(1, 10),
        ("a", CANARY, "labels_came:60"): Pair(0, 10),
        ("a", CANARY, 'labels_of_age_by_caller:600,""'): Pair(2, 5),
        ("a", CANARY, 'labels_of_age_by_caller:60,""'): Pair(4, 10),
    }
    every = windows(reading(0.0, {}), Reading(5.0, found), stable=STABLE, canary=CANARY)
    plan = Signals({"wrong_label": WrongLabel(after=600)})
    assert [(window.signal, window.canary) for window in plan.selection().of(every)] == [("wrong_label", Pair(2, 5))]
    assert [(window.signal, window.canary) for window in plan.labels_came(every)] == [("labels_came", Pair(1, 10))]
    assert plan.selection().of(every)[0].callers is None  # the callers are unknown
    as_they_come = Signals()
    assert as_they_come.selection().of(every) == as_they_come.labels_came(every) == []


LABELS_BY_CALLER = [
    (Signals(), "kanaria_feedback_total", {}, "wrong_label"),
    (Signals({"wrong_label": WrongLabel(after=600)}), "kanaria_labels_total", {"age_s": "600"}, "wrong_label"),
]


@pytest.mark.parametrize(("plan", "series", "labels", "signal"), LABELS_BY_CALLER, ids=["as they come", "at an age"])
def test_labels_are_counted_by_caller_if_all_callers_are_known(
    plan: Signals, series: str, labels: dict[str, str], signal: str
) -> None:
    def page(version: str, caller: str, wrong: int, correct: int) -> list[Sample]:
        told = {"version": version, "caller": caller, **labels}
        return [sample(series, wrong, outcome="wrong", **told), sample(series, correct, outcome="correct", **told)]

    known = [*page(STABLE, "shop", 1, 9), *page(STABLE, "bank", 0, 5), *page(CANARY, "shop", 4, 6)]
    found = c.counters(version_tables("a", known))
    (window,) = plan.selection().of(windows(reading(0.0, {}), Reading(5.0, found), stable=STABLE, canary=CANARY))
    assert (window.signal, window.stable, window.canary) == (signal, Pair(1, 15), Pair(4, 10))
    assert window.callers == {
        "shop": BothPairs(Pair(1, 10), Pair(4, 10)),
        "bank": BothPairs(Pair(0, 5), Pair(0, 0)),
    }
    assert window.without("shop") == replace(window, stable=Pair(0, 5), canary=Pair(0, 0), callers=None)
    partly = c.counters(version_tables("a", [*known, *page(CANARY, "", 0, 1)]))
    (window,) = plan.selection().of(windows(reading(0.0, {}), Reading(5.0, partly), stable=STABLE, canary=CANARY))
    assert (window.canary, window.callers) == (Pair(4, 11), None)


EVERY_COUNTER = (
    "errors",
    "latency:25",
    "latency:500",
    "class:7",
    "low_confidence:0.5",
    "low_confidence:0.9",
    "wrong_label",
)


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        (
            Signals({"latency": Latency(slower_than_ms=(500,)), "low_confidence": LowConfidence(below=0.9)}),
            ["class:7", "errors", "latency:500", "low_confidence", "wrong_label"],
        ),
        (
            Signals({"latency": Latency(slower_than_ms=(25, 500))}).only("errors", "latency"),
            ["errors", "latency:25", "latency:500"],
        ),
        (Signals().only("errors", "class", "wrong_label"), ["class:7", "errors", "wrong_label"]),
        (Signals({"wrong_label": WrongLabel(after=600)}).only("errors", "wrong_label"), ["errors"]),
    ],
)
def test_a_release_judges_only_the_selected_signals(plan: Signals, names: list[str]) -> None:
    """The plan selects families, latency bounds and one confidence bound."""
    after = reading(5.0, {("a", CANARY, counted): (1, 2) for counted in EVERY_COUNTER})
    found = plan.selection().of(windows(reading(0.0, {}), after, stable=STABLE, canary=CANARY))
    assert [(window.signal, window.canary) for window in found] == [(name, Pair(1, 2)) for name in names]


def test_a_window_is_the_difference_of_two_readings_summed_over_processes() -> None:
    """Feedback about the canary counts for the canary even if stable's process received it."""
    before = reading(100.0, {("a", CANARY, "wrong_label"): (1, 10), ("b", CANARY, "wrong_label"): (0, 5)})
    after = reading(105.0, {("a", CANARY, "wrong_label"): (3, 15), ("b", CANARY, "wrong_label"): (1, 6)})
    assert windows(before, after, stable=STABLE, canary=CANARY) == [
        Window(end_s=105.0, window_s=5.0, signal="wrong_label", stable=Pair(0, 0), canary=Pair(3, 6))
    ]


BEFORE_SHADOW = reading(0.0, {("a", STABLE, "disagreement"): (7, 90), ("b", CANARY, "disagreement"): (3, 40)})
AFTER_SHADOW = reading(5.0, {("a", STABLE, "disagreement"): (15, 140), ("b", CANARY, "disagreement"): (11, 89)})


def shadow_windows(*, has_pairs: bool, is_wanted: bool = True) -> list[tuple[Pair, Pair]]:
    found = windows(
        BEFORE_SHADOW,
        AFTER_SHADOW,
        stable=STABLE,
        canary=CANARY,
        has_pairs=has_pairs,
    )
    plan = Signals() if is_wanted else Signals().without("disagreement")
    selected = plan.selection().of(found)
    return [(window.stable, window.canary) for window in selected]


def test_the_shadow_is_compared_with_no_differences_on_stable() -> None:
    """8 of 49 new answers differ. Stable counted the same pairs, but the differences are not its own."""
    assert shadow_windows(has_pairs=True) == [(Pair(0, 49), Pair(8, 49))]


def test_answers_are_compared_only_while_the_canary_gets_copies() -> None:
    """Later pairs come from requests that a client sent twice, which may be unusual."""
    assert shadow_windows(has_pairs=False) == []


def test_a_plan_may_leave_disagreement_out() -> None:
    """A version with other kinds of labels would differ in every answer."""
    assert shadow_windows(has_pairs=True, is_wanted=False) == []


def test_a_signal_without_new_events_has_no_window() -> None:
    """Unchanged counters and events of other versions are not evidence."""
    before = reading(0.0, {("g", STABLE, "errors"): (1, 10), ("g", "digits:v0", "errors"): (0, 1)})
    after = reading(5.0, {("g", STABLE, "errors"): (1, 10), ("g", "digits:v0", "errors"): (0, 9)})
    assert judged(before, after) == {}


def test_a_restarted_process_counts_from_zero() -> None:
    """Its total fell, so all that it shows is new."""
    before = reading(0.0, {("g", CANARY, "errors"): (3, 500)})
    after = merge(before, reading(5.0, {("g", CANARY, "errors"): (4, 20)}))
    assert judged(before, after) == {"errors": (Pair(0, 0), Pair(4, 20))}


def test_a_process_that_misses_a_reading_is_counted_from_its_last_value() -> None:
    """When it is back, only the events in between are new."""
    first = reading(0.0, {("a", CANARY, "errors"): (1, 100)})
    away = merge(first, reading(5.0, {}))
    back = merge(away, reading(10.0, {("a", CANARY, "errors"): (2, 130)}))
    assert (judged(first, away), judged(away, back)) == ({}, {"errors": (Pair(0, 0), Pair(1, 30))})


def test_bad_events_read_before_their_total_are_counted_later() -> None:
    """Three new bad events and one new event: one bad event now, the other two when the total has caught up."""
    first = reading(0.0, {("g", CANARY, "errors"): (0, 10)})
    torn = merge(first, reading(5.0, {("g", CANARY, "errors"): (3, 11)}))
    whole = merge(torn, reading(10.0, {("g", CANARY, "errors"): (3, 14)}))
    assert judged(first, torn) == {"errors": (Pair(0, 0), Pair(1, 1))}
    assert judged(torn, whole) == {"errors": (Pair(0, 0), Pair(2, 3))}


def test_a_class_that_only_the_canary_predicts_has_all_rows_of_stable_as_its_total() -> None:
    """Stable predicted it in none of its 40 rows."""
    before = reading(0.0, {})
    after = reading(5.0, {("a", STABLE, "class:cat"): (40, 40), ("b", CANARY, "class:dog"): (8, 8)})
    assert judged(before, after)["class:dog"] == (Pair(0, 40), Pair(8, 8))


def test_the_first_prediction_of_a_class_does_not_count_earlier_rows_again() -> None:
    """A new class among 1,005 rows, 1,000 of which were already counted, has 5 new rows."""
    before = reading(0.0, {("a", CANARY, "class:cat"): (1000, 1000)})
    after = reading(5.0, {("a", CANARY, "class:cat"): (1003, 1005), ("a", CANARY, "class:dog"): (2, 1005)})
    assert judged(before, merge(before, after))["class:dog"] == (Pair(0, 0), Pair(2, 5))


@dataclass(frozen=True)
class Interval:
    """What one process does between two readings."""

    good: int
    bad: int
    is_readable: bool
    is_torn: bool  # the reading misses this interval's events in the total, but not in `bad`
    is_restarted: bool  # before its events


def intervals(*, restarts: bool) -> st.SearchStrategy[Interval]:
    few = st.integers(0, 50)
    return st.builds(Interval, few, few, st.booleans(), st.booleans(), st.booleans() if restarts else st.just(False))


def histories(*, restarts: bool) -> st.SearchStrategy[list[tuple[Interval, Interval]]]:
    """Histories of two processes that count for the same version."""
    return st.lists(st.tuples(intervals(restarts=restarts), intervals(restarts=restarts)), max_size=30)


def replay(history: list[tuple[Interval, Interval]]) -> tuple[Pair, list[Window]]:
    """All events that happened, and the windows of all readings."""
    at_rest = Interval(good=0, bad=0, is_readable=True, is_torn=False, is_restarted=False)
    keys: tuple[SeriesKey, ...] = (("a", CANARY, "errors"), ("b", CANARY, "errors"))
    counts = dict.fromkeys(keys, Pair(0, 0))
    happened, last = Pair(0, 0), Reading(0.0, counts)
    found: list[Window] = []
    for at_s, processes in enumerate([*history, (at_rest, at_rest)], start=1):
        seen = {}
        for key, now in zip(keys, processes, strict=True):
            before = Pair(0, 0) if now.is_restarted else counts[key]
            events = Pair(now.bad, now.good + now.bad)
            counts = counts | {key: before + events}
            happened += events
            if now.is_readable:
                seen[key] = Pair(counts[key].bad, before.total if now.is_torn else counts[key].total)
        merged = merge(last, Reading(float(at_s), seen))
        found += windows(last, merged, stable=STABLE, canary=CANARY)
        last = merged
    return happened, found


@given(histories(restarts=False))
def test_every_event_is_counted_exactly_once(history: list[tuple[Interval, Interval]]) -> None:
    """Processes may be away and readings torn; after a final reading the windows add up to the true counts."""
    happened, found = replay(history)
    assert sum((window.canary for window in found), Pair(0, 0)) == happened


@given(histories(restarts=True))
def test_no_event_is_ever_invented(history: list[tuple[Interval, Interval]]) -> None:
    """Processes may restart between readings; the windows never add up to more than happened."""
    happened, found = replay(history)
    counted = sum((window.canary for window in found), Pair(0, 0))
    assert counted.bad <= happened.bad
    assert counted.total <= happened.total


@given(histories(restarts=True))
def test_no_window_has_more_bad_events_than_events(history: list[tuple[Interval, Interval]]) -> None:
    """Whatever was read, a window is possible."""
    _, found = replay(history)
    assert all(0 <= window.canary.bad <= window.canary.total for window in found)


@pytest.fixture
def _all_signals() -> Iterator[None]:
    with using(BUILT_IN):
        yield


@pytest.mark.usefixtures("_all_signals")
def test_answer_times_count_by_how_many_bounds_they_exceed() -> None:
    """It uses the gateway's finer bounds; a window has the sum of these numbers and of their squares."""
    took = (0.5, 3.0, 3.0, 40.0, 20_000.0)
    steps = [sum(each > bound for bound in LATENCY_STEPS_MS) for each in took]

    def read(at_s: float, repeated: int) -> Reading:
        within = {f"{bound:g}": repeated * sum(each <= bound for each in took) for bound in LATENCY_STEPS_MS}
        samples = buckets(
            "envoy_kanaria_predict_duration_ms", within | {"+Inf": repeated * len(took)}, version=CANARY, routed=CANARY
        )
        return Reading(at_s, counters(samples))

    (window,) = (each for each in windows(read(0.0, 2), read(5.0, 3), stable=STABLE, canary=CANARY) if each.numbers)
    assert (window.signal, window.stable, window.canary) == ("typical_latency", Pair(0, 0), Pair(0, 5))
    assert window.numbers is not None
    assert window.numbers.canary == (5, sum(steps), sum(step * step for step in steps))
    restarted = windows(read(0.0, 2), read(5.0, 1), stable=STABLE, canary=CANARY)
    assert [each.canary for each in restarted if each.numbers] == [Pair(0, 5)]


@pytest.mark.usefixtures("_all_signals")
def test_a_gateway_with_fewer_bounds_gives_no_such_numbers() -> None:
    """A gateway of an earlier version runs until it is restarted; no number is invented for it."""
    samples = buckets(
        "envoy_kanaria_predict_duration_ms", {"25": 60, "100": 95, "+Inf": 100}, version=CANARY, routed=CANARY
    )
    assert not any(signal.startswith("typical_latency") for _, _, signal in counters(samples))
