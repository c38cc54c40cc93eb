"""The recorder counts each request once, in bounded memory, with percentiles of a stated accuracy."""

import numpy as np
import pytest

from loadtest.http_contract import Reply
from loadtest.recorder import LISTED_FAILURES, MOST_WINDOWS, Outcome, Recorder
from loadtest.results import ExitCode, Summary, VersionCounts
from loadtest.scenario import Scenario, Segment, Task

PLAN = Scenario.model_validate({"name": "t", "seed": 1, "shape": [{"for_s": 10, "rate": 10}], "late_after_ms": 50})
OK = Reply(request_id="r", version="m:v1", correct=1)


def recorder(plan: Scenario = PLAN) -> Recorder:
    return Recorder(plan, started_at=1_700_000_000.0)


def send(to: Recorder, due_s: float, *, slip_s: float = 0.0, service_s: float = 0.01, reply: Reply = OK) -> None:
    sent_s = due_s + slip_s
    to.sent(due_s, sent_s)
    status = 500 if reply.failure else 200
    to.ended(Outcome(Task.ONE_ROW, due_s, sent_s, sent_s + service_s, status, reply))


def summary(of: Recorder) -> Summary:
    return of.summary(host="http://127.0.0.1", stopped_early=False, generator_cpu_s=0.0)


def test_percentiles_are_at_most_one_percent_above_the_exact_ones() -> None:
    """10,000 log-normal latencies: every percentile is the true value or up to 1 % more."""
    latencies_s = np.random.default_rng(3).lognormal(mean=-4, sigma=1.2, size=10_000)
    into = recorder()
    for latency_s in latencies_s:
        send(into, 1.0, service_s=float(latency_s))
    measured = summary(into).service
    for percent, value_ms in (
        (50, measured.p50_ms),
        (90, measured.p90_ms),
        (95, measured.p95_ms),
        (99, measured.p99_ms),
    ):
        exact_ms = float(np.percentile(latencies_s, percent, method="inverted_cdf")) * 1e3
        assert exact_ms * 0.999 <= value_ms <= exact_ms * 1.01


def test_latency_counts_from_the_scheduled_time_and_service_from_the_sending() -> None:
    """Due at 1 s, sent 0.5 s late, answered 0.1 s after that: 600 ms scheduled latency, 100 ms of service."""
    into = recorder()
    send(into, 1.0, slip_s=0.5, service_s=0.1)
    result = summary(into)
    assert result.scheduled.max_ms == pytest.approx(600, rel=0.01)
    assert result.service.max_ms == pytest.approx(100, rel=0.01)


def test_an_arrival_slips_when_it_is_sent_late_or_never() -> None:
    """With a tolerance of 50 ms, 40 ms late is in time; 60 ms late and never sent are slips."""
    into = recorder()
    send(into, 1.0, slip_s=0.04)
    send(into, 2.0, slip_s=0.06)
    into.not_sent(3.0)
    result = summary(into)
    assert (result.offered, result.requests, result.slipped, result.not_sent) == (3, 2, 2, 1)


def test_arrivals_count_in_the_window_when_due_and_answers_when_they_came() -> None:
    """An answer that takes 3 s is offered in one window and answered in a later one."""
    into = recorder()
    send(into, 1.5, service_s=3.0)
    windows = {window.start_s: (window.offered, window.answered) for window in summary(into).windows}
    assert windows == {1.0: (1, 0), 4.0: (0, 1)}


def test_a_long_run_keeps_a_bounded_number_of_windows() -> None:
    """Six hours have no more windows than the bound, answers after the end included."""
    six_hours = (Segment(for_s=6 * 3600, rate=1),)
    plan = PLAN.model_copy(update={"shape": six_hours})
    into = recorder(plan)
    for due_s in range(0, 6 * 3600, 7):
        send(into, float(due_s), service_s=30.0)
    assert len(summary(into).windows) <= MOST_WINDOWS


def test_every_failure_is_counted_and_the_first_ones_are_listed() -> None:
    """300 failures are 300 in the count; the list stops at its bound and keeps time, status and message."""
    into = recorder()
    for number in range(300):
        send(into, 1.0, reply=Reply(failure=f"broke {number}"))
    result = summary(into)
    assert (result.failures, len(result.failure_list)) == (300, LISTED_FAILURES)
    first = result.failure_list[0]
    assert (first.at, first.status, first.message) == (pytest.approx(1_700_000_001.01), 500, "broke 0")
    assert result.exit_code is ExitCode.GATE_BROKEN


def test_answers_and_right_rows_are_counted_by_version() -> None:
    """Each version has its own answers, right rows and wrong rows; an answer without one counts for none."""
    into = recorder()
    send(into, 1.0, reply=Reply(version="m:v1", correct=3, wrong=1))
    send(into, 1.0, reply=Reply(version="m:v1", correct=1))
    send(into, 1.0, reply=Reply(version="m:v2", wrong=2))
    send(into, 1.0, reply=Reply(failure="HTTP 500"))
    assert summary(into).versions == {
        "m:v1": VersionCounts(answers=2, correct=4, wrong=1),
        "m:v2": VersionCounts(answers=1, correct=0, wrong=2),
    }


def test_the_live_counters_show_what_is_in_flight() -> None:
    """A request that was sent and not yet answered is in flight."""
    into = recorder()
    send(into, 1.0)
    into.sent(2.0, 2.0)
    live = into.live(now_s=2.5)
    assert (live.offered, live.requests, live.in_flight) == (2, 1, 1)


def test_a_run_without_requests_measured_nothing() -> None:
    """Without a request the exit code is 3, and the summary can still be read."""
    result = summary(recorder())
    assert result.exit_code is ExitCode.NOTHING_MEASURED
    assert Summary.model_validate_json(result.model_dump_json()) == result
