"""The whole story on this machine: a better version is promoted, a wrong one is rolled back, users notice nothing.

Everything in it is the real thing (training, Bentos, Envoy, traffic, judge); only the time is short.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console

from kanaria.demo_drift import DriftTold, in_words, play, section
from kanaria.fleet import process_name
from kanaria.stage import Stage
from loadtest.results import Summary
from loadtest.scenario import load_scenario
from rollout.explain import one_sentence
from rollout.report import Section, render_report
from rollout.spec import Latency, RolloutSpec, Signals
from rollout.view import ReleaseView

Fault = Literal["wrong", "errors", "latency", "crash", "drift"]

BASELINE_S = 45.0  # of stable alone: how noisy is this machine?
RELEASE_LIMIT_S = 150.0
CRASH_PERCENT = 25
RESULT = "demo.json"
_VARIANT_OF_V3 = {"wrong": "v3", "errors": "v3-errors", "latency": "v3-latency", "crash": "v2"}

# Short steps for a short story. The risk budget fits a service with under a hundred requests a second and
# five minutes to spare; rollout.yaml has the careful defaults.
PLAN = RolloutSpec(
    steps=("shadow", 5, 25, 50, 100),
    soak=5.0,
    window=2.0,
    watch=8.0,
    step_deadline=120.0,
    risk_budget=0.02,
    signals=Signals(latency=Latency(slower_than_ms=(50, 100, 250), tolerance=1.5)),  # two shared cores are noisy
)
# No shadow for the bad version: the demo is to show what the canary steps alone let through.
PLAN_BAD = PLAN.model_copy(update={"steps": (5, 25, 50, 100)})


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What `demo.json` says."""

    promoted: str | None
    rolled_back: str | None
    rollback_signal: str | None
    rollback_reason: str | None
    client_requests: int
    client_failures: int
    client_failures_of_rolled_back: int  # of these, what the bad version itself answered before it was gone
    seconds_to_rollback: float | None  # from the first canary request to weight 0
    canary_requests_until_rollback: int
    canary_failures_until_rollback: int
    seconds_total: float
    requests_per_second: float  # offered; kept low enough that two cores are not saturated
    client_p50_ms: float
    client_p99_ms: float
    fault: str
    report: str
    drift: DriftTold | None = None  # only where that is the story

    @property
    def is_as_promised(self) -> bool:
        is_clean = self.client_failures == self.client_failures_of_rolled_back
        if self.drift:
            return self.promoted is not None and self.rolled_back is None and self.drift.is_as_promised and is_clean
        return self.promoted is not None and self.rolled_back is not None and is_clean


def run_demo(fault: Fault, console: Console) -> DemoResult:
    """Tell the story in the present state folder, and say where its report is.

    Raises: StackError, LoadTestError, RolloutError; whatever was started is stopped in every case.
    """
    stage = Stage.here(console)
    console.print(f"Kanaria demo in {stage.root}", soft_wrap=True)
    stage.clear()
    if fault == "drift":
        story = play(stage, PLAN, limit_s=RELEASE_LIMIT_S)
        result = _report(stage, fault, story.release, None, story.users, drift=story.told)
    else:
        result = _good_and_bad(stage, fault)
    _tell(result, console, stage.root / RESULT)
    return result


def _good_and_bad(stage: Stage, fault: Fault) -> DemoResult:
    """A better version, then one with a fault."""
    stage.build({"v1": "v1", "v2": "v2", "v3": _VARIANT_OF_V3[fault]})
    with stage.up("v1"), stage.users(load_scenario("demo")) as load:
        stage.wait(BASELINE_S, "traffic to v1 alone, to learn how noisy this machine is")
        good = stage.release("v2", PLAN, load, limit_s=RELEASE_LIMIT_S)
        crash = _Crash(stage) if fault == "crash" else None
        bad = stage.release("v3", PLAN_BAD, load, limit_s=RELEASE_LIMIT_S, on_look=crash or (lambda _: None))
        with stage.working("stopping the users"):
            summary = load.stop()
    return _report(stage, fault, good, bad, (summary,))


class _Crash:
    """Kills the canary's whole process tree, once, in the middle of a step."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._is_due = stage, True

    def __call__(self, release: ReleaseView) -> None:
        info = self._stage.stack.supervisor.info(process_name(release.canary))
        if not self._is_due or release.state.weight_percent < CRASH_PERCENT or info is None or not info.is_alive:
            return
        self._is_due = False
        process = psutil.Process(info.pid)
        for one in (*process.children(recursive=True), process):
            one.kill()
        self._stage.say(
            f"killed {release.canary} (pid {info.pid} and its workers) with SIGKILL in the middle of a step"
        )


def _report(
    stage: Stage,
    fault: Fault,
    good: ReleaseView,
    bad: ReleaseView | None,
    users: Sequence[Summary],
    *,
    drift: DriftTold | None = None,
) -> DemoResult:
    path = stage.root / "demo.html"
    suspect = bad or good
    was_rolled_back = suspect.outcome == "rolled_back"
    seconds = None
    if bad and bad.first_canary_s and bad.out_of_traffic_s:
        seconds = round(bad.out_of_traffic_s - bad.first_canary_s, 1)
    failures = [failure for summary in users for failure in summary.failure_list]
    result = DemoResult(
        promoted=good.canary if good.outcome == "promoted" else None,
        rolled_back=suspect.canary if was_rolled_back else None,
        rollback_signal=suspect.state.outcome_signal,
        rollback_reason=one_sentence(suspect) if bad or was_rolled_back else None,
        client_requests=sum(summary.requests for summary in users),
        client_failures=sum(summary.failures for summary in users),
        client_failures_of_rolled_back=sum(was_rolled_back and one.version == suspect.canary for one in failures),
        seconds_to_rollback=seconds,
        canary_requests_until_rollback=bad.canary_requests if bad else 0,
        canary_failures_until_rollback=bad.canary_failures if bad else 0,
        seconds_total=round(stage.elapsed_s, 1),
        requests_per_second=users[-1].scenario.shape[0].rate,
        client_p50_ms=users[-1].scheduled.p50_ms,
        client_p99_ms=users[-1].scheduled.p99_ms,
        fault=fault,
        report=str(path),
        drift=drift,
    )
    extra = [*([section(drift, stage.settings)] if drift else ()), *map(_clients, users)]
    path.write_text(render_report(list(filter(None, (good, bad))), title="Kanaria demo", extra=extra))
    (stage.root / RESULT).write_text(json.dumps(asdict(result), indent=2) + "\n")
    return result


def _tell(result: DemoResult, console: Console, path: Path) -> None:
    """Print the end of the story."""
    console.print()
    for title, tag, is_meant in (
        ("promoted:   ", result.promoted, True),
        ("rolled back:", result.rolled_back, result.drift is None),
    ):
        console.print(f"{title} {tag or 'nothing'}", style="bold green" if bool(tag) is is_meant else "bold red")
    if result.rollback_reason:
        console.print(f"             {result.rollback_reason}", highlight=False)
    if result.drift:
        for line in in_words(result.drift):
            console.print(f"drift:       {line}", highlight=False, markup=False)
    blame = (
        f", {result.client_failures_of_rolled_back} of them by {result.rolled_back}" if result.client_failures else ""
    )
    clients = f"{result.client_requests:,} requests, {result.client_failures} failed{blame}"
    console.print(f"clients:     {clients}", highlight=False)
    console.print(f"took:        {result.seconds_total:.0f} s", highlight=False)
    for written in (result.report, path):
        console.print(f"read:        {written}", highlight=False, soft_wrap=True)


def _clients(summary: Summary) -> Section:
    """What the users saw, for the report."""
    latency = summary.scheduled
    counted = f"{summary.requests:,} requests in {summary.duration_s:.0f} s, {summary.failures:,} failed."
    speed = (
        f"From the moment a request was due, half had their answer within {latency.p50_ms:.1f} ms, "
        f"95 % within {latency.p95_ms:.1f} ms, 99 % within {latency.p99_ms:.1f} ms."
    )
    rows = tuple(
        (version, f"{counts.answers:,}", f"{counts.correct:,}", f"{counts.wrong:,}")
        for version, counts in sorted(summary.versions.items())
    )
    columns = ("version", "answers", "rows right", "rows wrong")
    return Section(title="What the users saw", lines=(counted, speed), columns=columns, rows=rows)
