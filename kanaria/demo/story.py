"""The whole demo on this machine: a better version is promoted, a wrong one is rolled back, users notice nothing.

Everything is real (training, Bentos, Envoy, traffic, judge); only the time is short.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import psutil

from contract.terminal import Terminal
from kanaria.demo.digits import DigitsDemo
from kanaria.demo.drift_story import DriftSummary, in_words, section
from kanaria.demo.drift_story import run as run_drift_story
from kanaria.demo.environment import DemoEnvironment, Fault
from kanaria.demo.text import TextDemo
from kanaria.errors import SetupError
from kanaria.stack.bentos import process_name
from loadtest.results import Summary
from rollout.explain.timeline import Timeline
from rollout.explain.why import one_sentence
from rollout.spec import SHADOW, RolloutSpec
from rollout.ui.report import Section, render_report

ServiceName = Literal["digits", "text"]

_SERVICES: Mapping[ServiceName, type[DemoEnvironment]] = MappingProxyType({"digits": DigitsDemo, "text": TextDemo})
RELEASE_LIMIT_S = 150.0
CRASH_PERCENT = 25
RESULT = "demo.json"


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The content of `demo.json`."""

    promoted: str | None
    rolled_back: str | None
    rollback_signal: str | None
    rollback_reason: str | None
    client_requests: int
    client_failures: int
    client_failures_of_rolled_back: int  # of these, the ones that the bad version answered before it was rolled back
    seconds_to_rollback: float | None  # from the first canary request to weight 0
    canary_requests_until_rollback: int
    canary_failures_until_rollback: int
    seconds_total: float
    requests_per_second: float  # offered; kept low enough that two cores are not saturated
    client_p50_ms: float
    client_p99_ms: float
    service: str
    fault: str
    report: str
    drift: DriftSummary | None = None  # only in the demo of drift

    @property
    def is_as_promised(self) -> bool:
        is_clean = self.client_failures == self.client_failures_of_rolled_back
        if self.drift:
            return self.promoted is not None and self.rolled_back is None and self.drift.is_as_promised and is_clean
        return self.promoted is not None and self.rolled_back is not None and is_clean


def run_demo(service: ServiceName, fault: Fault, console: Terminal) -> DemoResult:
    """Run the demo in the current state folder and print where its report is.

    Raises: SetupError, StackError, LoadTestError, RolloutError. The stack is stopped in every case.
    """
    kind = _SERVICES[service]
    shows = (*kind.variant_of_v3, *(["drift"] if kind is DigitsDemo else []))
    if fault not in shows:
        raise SetupError(
            f"the demo of the service `{service}` does not show this fault",
            saw=f"--fault {fault}",
            do=f"choose one of {', '.join(shows)}, or `--service digits`",
        )
    environment = kind.here(console)
    console.print(f"Kanaria demo in {environment.root}", soft_wrap=True)
    plan = environment.plan()
    environment.clear()
    if fault == "drift" and isinstance(environment, DigitsDemo):
        story = run_drift_story(environment, plan, limit_s=RELEASE_LIMIT_S)
        result = _report(environment, fault, story.release, None, story.users, drift=story.summary)
    else:
        result = _good_and_bad(environment, fault, plan)
    _print(result, console, environment.root / RESULT)
    return result


def _good_and_bad(environment: DemoEnvironment, fault: Fault, plan: RolloutSpec) -> DemoResult:
    """Release a better version, then one with a fault."""
    environment.build({"v1": "v1", "v2": "v2", "v3": environment.variant_of_v3[fault]})
    with environment.up("v1"), environment.users() as load:
        environment.wait(environment.baseline_s, "traffic to v1 alone, to learn how noisy this machine is")
        good = environment.release("v2", plan, load, limit_s=RELEASE_LIMIT_S)
        crash = _Crash(environment) if fault == "crash" else None
        bad = environment.release(
            "v3", without_shadow(plan), load, limit_s=RELEASE_LIMIT_S, on_update=crash or (lambda _: None)
        )
        with environment.working("stopping the users"):
            summary = load.stop()
    return _report(environment, fault, good, bad, (summary,))


def without_shadow(plan: RolloutSpec) -> RolloutSpec:
    """The plan for the bad version, without shadow steps: the demo shows what the canary steps let through."""
    if plan.steps == "auto":
        return plan
    return plan.model_copy(update={"steps": tuple(step for step in plan.steps if step != SHADOW)})


class _Crash:
    """Kills all processes of the canary once, in the middle of a step."""

    def __init__(self, environment: DemoEnvironment) -> None:
        self._environment, self._is_due = environment, True

    def __call__(self, release: Timeline) -> None:
        info = self._environment.stack.supervisor.info(process_name(release.canary))
        if not self._is_due or release.state.weight_percent < CRASH_PERCENT or info is None or not info.is_alive:
            return
        self._is_due = False
        process = psutil.Process(info.pid)
        for one in (*process.children(recursive=True), process):
            one.kill()
        self._environment.say(
            f"killed {release.canary} (pid {info.pid} and its workers) with SIGKILL in the middle of a step"
        )


def _report(
    environment: DemoEnvironment,
    fault: Fault,
    good: Timeline,
    bad: Timeline | None,
    users: Sequence[Summary],
    *,
    drift: DriftSummary | None = None,
) -> DemoResult:
    path = environment.root / "demo.html"
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
        seconds_total=round(environment.elapsed_s, 1),
        requests_per_second=users[-1].scenario.shape[0].rate,
        client_p50_ms=users[-1].scheduled.p50_ms,
        client_p99_ms=users[-1].scheduled.p99_ms,
        service=environment.service,
        fault=fault,
        report=str(path),
        drift=drift,
    )
    extra = [*([section(drift, environment.settings)] if drift else ()), *map(_clients, users)]
    path.write_text(render_report(list(filter(None, (good, bad))), title="Kanaria demo", extra=extra))
    (environment.root / RESULT).write_text(json.dumps(asdict(result), indent=2) + "\n")
    return result


def _print(result: DemoResult, console: Terminal, path: Path) -> None:
    """Print the result."""
    console.print()
    for title, tag, is_meant in (
        ("promoted:   ", result.promoted, True),
        ("rolled back:", result.rolled_back, result.drift is None),
    ):
        console.print(f"{title} {tag or 'nothing'}", style="bold green" if bool(tag) is is_meant else "bold red")
    if result.rollback_reason:
        console.print(f"             {result.rollback_reason}")
    if result.drift:
        for line in in_words(result.drift):
            console.print(f"drift:       {line}")
    blame = (
        f", {result.client_failures_of_rolled_back} of them by {result.rolled_back}" if result.client_failures else ""
    )
    clients = f"{result.client_requests:,} requests, {result.client_failures} failed{blame}"
    console.print(f"clients:     {clients}")
    console.print(f"took:        {result.seconds_total:.0f} s")
    for written in (result.report, path):
        console.print(f"read:        {written}", soft_wrap=True)


def _clients(summary: Summary) -> Section:
    """The section of the report about what users saw."""
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
