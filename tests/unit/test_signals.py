"""Counters become windows of new events, each event once, whatever happens to the processes that count."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.interfaces import Reading, SeriesKey
from rollout.judge.types import Pair, Window
from rollout.signals import Sample, SignalSelection, counters, merge, windows

GATEWAY = "127.0.0.1:9901"
STABLE, CANARY = "digits:v1", "digits:v2"


def sample(name: str, value: float, **labels: str) -> Sample:
    return Sample(name, labels, value)


def request_samples(version: str, *, routed: str | None = None, **codes: int) -> list[Sample]:
    """`c200=3` stands for three answers with status 200."""
    return [
        sample("envoy_kanaria_predict_total", count, version=version, routed=routed or version, code=code[1:])
        for code, count in codes.items()
    ]


def buckets(name: str, within: Mapping[str, int], **labels: str) -> list[Sample]:
    return [sample(f"{name}_bucket", count, le=le, **labels) for le, count in within.items()]


def reading(at_s: float, pairs: Mapping[SeriesKey, tuple[int, int]]) -> Reading:
    return Reading(at_s=at_s, counters={key: Pair(*pair) for key, pair in pairs.items()})


def judged(previous: Reading, current: Reading) -> dict[str, tuple[Pair, Pair]]:
    return {
        w.signal: (w.stable, w.canary)
        for w in windows(previous, current, stable=STABLE, canary=CANARY, selection=SignalSelection())
    }


def test_errors_are_5xx_among_answered_requests() -> None:
    """A client that hung up (code 0) was not answered; a refused input (422) was, and well."""
    samples = request_samples(CANARY, c200=90, c422=5, c500=3, c504=2, c0=7)
    found = counters({GATEWAY: samples})
    assert found == {(GATEWAY, CANARY, "errors"): Pair(5, 100)}


def test_a_fallback_is_evidence_about_nobody() -> None:
    """Requests sent to the canary and answered by stable count for neither."""
    samples = [*request_samples(STABLE, c200=10), *request_samples(STABLE, routed=CANARY, c200=50, c503=50)]
    found = counters({GATEWAY: samples})
    assert found == {(GATEWAY, STABLE, "errors"): Pair(0, 10)}


def test_latency_counts_what_is_slower_than_each_bound() -> None:
    """Buckets are cumulative: slower than 25 ms is everything that is not within 25 ms."""
    within = {"25": 60, "100": 95, "+Inf": 100}
    samples = buckets("envoy_kanaria_predict_duration_ms", within, version=CANARY, routed=CANARY)
    assert counters({GATEWAY: samples}) == {
        (GATEWAY, CANARY, "latency:25"): Pair(40, 100),
        (GATEWAY, CANARY, "latency:100"): Pair(5, 100),
    }


def test_only_the_mirrored_version_has_its_copied_requests_read() -> None:
    """Shadow clusters of other versions, and clusters that are no shadow, are left alone."""
    names = ("shadow%2Fdigits%3Av2", "shadow%2Fdigits%3Av9", "digits%3Av2")
    samples = [
        sample("envoy_cluster_upstream_rq_xx", 7, envoy_cluster_name=name, envoy_response_code_class=code)
        for name in names
        for code in ("2", "5")
    ]
    assert counters({GATEWAY: samples}) == {}
    assert counters({GATEWAY: samples}, mirrored=CANARY) == {(f"{GATEWAY}/shadow", CANARY, "errors"): Pair(7, 14)}


def test_a_version_that_failed_before_starts_its_next_attempt_clean() -> None:
    """Going from shadow to live traffic does not bring back the errors of an earlier attempt."""
    old = request_samples(CANARY, c200=400, c500=100)
    copies = sample(
        "envoy_cluster_upstream_rq_xx", 50, envoy_cluster_name="shadow%2Fdigits%3Av2", envoy_response_code_class="2"
    )
    shadow = Reading(0.0, counters({GATEWAY: [*old, copies]}, mirrored=CANARY))
    live = Reading(5.0, counters({GATEWAY: request_samples(CANARY, c200=410, c500=100)}))
    assert judged(shadow, merge(shadow, live)) == {"errors": (Pair(0, 0), Pair(0, 10))}


def test_predictions_confidence_and_feedback_come_from_the_service() -> None:
    """Each class against all rows, rows under each confidence bound, wrong among all known outcomes."""
    samples = [
        sample("kanaria_predictions_total", 30, version=CANARY, label="0"),
        sample("kanaria_predictions_total", 70, version=CANARY, label="1"),
        *buckets("kanaria_confidence", {"0.5": 4, "0.9": 60, "+Inf": 100}, version=CANARY),
        sample("kanaria_feedback_total", 8, version=STABLE, outcome="correct"),
        sample("kanaria_feedback_total", 2, version=STABLE, outcome="wrong"),
        sample("kanaria_disagreement_total", 30, version=CANARY, outcome="same"),
        sample("kanaria_disagreement_total", 20, version=CANARY, outcome="different"),
    ]
    assert counters({"127.0.0.1:3002": samples}) == {
        ("127.0.0.1:3002", CANARY, "class:0"): Pair(30, 100),
        ("127.0.0.1:3002", CANARY, "class:1"): Pair(70, 100),
        ("127.0.0.1:3002", CANARY, "low_confidence:0.5"): Pair(4, 100),
        ("127.0.0.1:3002", CANARY, "low_confidence:0.9"): Pair(60, 100),
        ("127.0.0.1:3002", STABLE, "wrong_label"): Pair(2, 10),
        ("127.0.0.1:3002", CANARY, "disagreement"): Pair(20, 50),
    }


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
    ("selection", "names"),
    [
        (
            SignalSelection(latency_ms=(500,), low_confidence_below=0.9),
            ["class:7", "errors", "latency:500", "low_confidence", "wrong_label"],
        ),
        (
            SignalSelection(latency_ms=(25, 500), predictions=False, low_confidence_below=None, labels=False),
            ["errors", "latency:25", "latency:500"],
        ),
        (SignalSelection(errors=False, latency_ms=(), low_confidence_below=None), ["class:7", "wrong_label"]),
    ],
)
def test_windows_hold_the_selected_signals_only(selection: SignalSelection, names: list[str]) -> None:
    """The spec chooses families, latency bounds and one confidence bound."""
    after = reading(5.0, {("a", CANARY, counted): (1, 2) for counted in EVERY_COUNTER})
    found = windows(reading(0.0, {}), after, stable=STABLE, canary=CANARY, selection=selection)
    assert [(window.signal, window.canary) for window in found] == [(name, Pair(1, 2)) for name in names]


def test_a_window_holds_the_difference_of_two_readings_summed_over_processes() -> None:
    """Feedback about the canary that stable's process received counts for the canary."""
    before = reading(100.0, {("a", CANARY, "wrong_label"): (1, 10), ("b", CANARY, "wrong_label"): (0, 5)})
    after = reading(105.0, {("a", CANARY, "wrong_label"): (3, 15), ("b", CANARY, "wrong_label"): (1, 6)})
    assert windows(before, after, stable=STABLE, canary=CANARY, selection=SignalSelection()) == [
        Window(end_s=105.0, window_s=5.0, signal="wrong_label", stable=Pair(0, 0), canary=Pair(3, 6))
    ]


BEFORE_SHADOW = reading(0.0, {("a", STABLE, "disagreement"): (7, 90), ("b", CANARY, "disagreement"): (3, 40)})
AFTER_SHADOW = reading(5.0, {("a", STABLE, "disagreement"): (15, 140), ("b", CANARY, "disagreement"): (11, 89)})


def shadow_windows(*, is_mirrored: bool, is_wanted: bool = True) -> list[tuple[Pair, Pair]]:
    found = windows(
        BEFORE_SHADOW,
        AFTER_SHADOW,
        stable=STABLE,
        canary=CANARY,
        selection=SignalSelection(disagreement=is_wanted),
        is_mirrored=is_mirrored,
    )
    return [(window.stable, window.canary) for window in found]


def test_the_shadow_is_compared_with_a_stable_that_agrees_with_itself() -> None:
    """8 of 49 new answers differ; stable counted the same pairs, which are no fault of its own."""
    assert shadow_windows(is_mirrored=True) == [(Pair(0, 49), Pair(8, 49))]


def test_answers_are_compared_only_while_the_canary_gets_copies() -> None:
    """Later pairs are requests that somebody sent twice, which may be special."""
    assert shadow_windows(is_mirrored=False) == []


def test_a_release_may_leave_disagreement_out() -> None:
    """A version with labels of another kind agrees with nobody."""
    assert shadow_windows(is_mirrored=True, is_wanted=False) == []


def test_a_signal_without_new_events_has_no_window() -> None:
    """The same counters again, and events of other versions, are no evidence."""
    before = reading(0.0, {("g", STABLE, "errors"): (1, 10), ("g", "digits:v0", "errors"): (0, 1)})
    after = reading(5.0, {("g", STABLE, "errors"): (1, 10), ("g", "digits:v0", "errors"): (0, 9)})
    assert judged(before, after) == {}


def test_a_process_that_started_again_counts_from_zero() -> None:
    """Its total fell, so all that it shows is new."""
    before = reading(0.0, {("g", CANARY, "errors"): (3, 500)})
    after = merge(before, reading(5.0, {("g", CANARY, "errors"): (4, 20)}))
    assert judged(before, after) == {"errors": (Pair(0, 0), Pair(4, 20))}


def test_a_process_that_was_away_is_counted_from_where_it_was() -> None:
    """Away for one reading, back in the next: only what happened meanwhile is new."""
    first = reading(0.0, {("a", CANARY, "errors"): (1, 100)})
    away = merge(first, reading(5.0, {}))
    back = merge(away, reading(10.0, {("a", CANARY, "errors"): (2, 130)}))
    assert (judged(first, away), judged(away, back)) == ({}, {"errors": (Pair(0, 0), Pair(1, 30))})


def test_bad_that_was_read_ahead_of_its_total_is_counted_with_it_later() -> None:
    """Three new bad events and one new event in all: one bad now, the other two when the total has caught up."""
    first = reading(0.0, {("g", CANARY, "errors"): (0, 10)})
    torn = merge(first, reading(5.0, {("g", CANARY, "errors"): (3, 11)}))
    whole = merge(torn, reading(10.0, {("g", CANARY, "errors"): (3, 14)}))
    assert judged(first, torn) == {"errors": (Pair(0, 0), Pair(1, 1))}
    assert judged(torn, whole) == {"errors": (Pair(0, 0), Pair(2, 3))}


def test_a_class_that_only_the_canary_predicts_is_compared_with_all_rows_of_stable() -> None:
    """Stable predicted it in none of its 40 rows."""
    before = reading(0.0, {})
    after = reading(5.0, {("a", STABLE, "class:cat"): (40, 40), ("b", CANARY, "class:dog"): (8, 8)})
    assert judged(before, after)["class:dog"] == (Pair(0, 40), Pair(8, 8))


def test_the_first_prediction_of_a_class_does_not_bring_back_all_rows_before_it() -> None:
    """A new class among 1,005 rows, of which 1,000 were counted already: 5 new rows."""
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
    """Of two processes that count for the same version."""
    return st.lists(st.tuples(intervals(restarts=restarts), intervals(restarts=restarts)), max_size=30)


def replay(history: list[tuple[Interval, Interval]]) -> tuple[Pair, list[Window]]:
    """All events that happened, and the windows that an observer got."""
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
        found += windows(last, merged, stable=STABLE, canary=CANARY, selection=SignalSelection())
        last = merged
    return happened, found


@given(histories(restarts=False))
def test_every_event_is_counted_exactly_once(history: list[tuple[Interval, Interval]]) -> None:
    """Processes may be away and readings torn: once all are read at rest, the windows add up to the truth."""
    happened, found = replay(history)
    assert sum((window.canary for window in found), Pair(0, 0)) == happened


@given(histories(restarts=True))
def test_no_event_is_ever_invented(history: list[tuple[Interval, Interval]]) -> None:
    """Processes may also start again, unseen: the windows never add up to more than happened."""
    happened, found = replay(history)
    counted = sum((window.canary for window in found), Pair(0, 0))
    assert counted.bad <= happened.bad
    assert counted.total <= happened.total


@given(histories(restarts=True))
def test_no_window_has_more_bad_events_than_events(history: list[tuple[Interval, Interval]]) -> None:
    """Whatever was read, a window is a possible observation."""
    _, found = replay(history)
    assert all(0 <= window.canary.bad <= window.canary.total for window in found)
