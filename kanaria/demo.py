"""The whole story on this machine: a better version is promoted, a wrong one is rolled back, users notice nothing.

Everything in it is the real thing (training, Bentos, Envoy, traffic, judge); only the time is short.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil
import yaml
from rich.console import Console

from kanaria.errors import SetupError, StackError
from kanaria.network import free_port, is_free
from kanaria.settings import Settings
from kanaria.stack import Stack
from loadtest.process import RunningLoad, start
from loadtest.results import Summary
from loadtest.scenario import load_scenario
from rollout import screen
from rollout.cli import find_release
from rollout.explain import one_sentence
from rollout.report import Section, render_report
from rollout.spec import Latency, RolloutSpec, Signals
from rollout.view import ReleaseView

Fault = Literal["wrong", "errors", "latency", "crash"]

BASELINE_S = 45.0  # of stable alone: how noisy is this machine?
RELEASE_LIMIT_S = 150.0
CRASH_PERCENT = 25
_MARK = "made-by-demo"  # in the state folder: the demo may empty only what it made itself

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

    @property
    def is_as_promised(self) -> bool:
        is_clean = self.client_failures == self.client_failures_of_rolled_back
        return self.promoted is not None and self.rolled_back is not None and is_clean


class Demo:
    """One run, in a state folder that it empties first."""

    def __init__(self, settings: Settings, fault: Fault, console: Console) -> None:
        self._settings, self._fault, self._console = settings, fault, console
        self._root = settings.root
        self._began_s = time.monotonic()
        self._package, self._model = _example()

    def run(self) -> DemoResult:
        """Tell the whole story. Raises StackError; stops what it started in every case."""
        self._empty_state_folder()
        self._train_and_build()
        with ExitStack() as cleanup:
            stack = Stack(self._settings, by="demo")
            cleanup.callback(self._down, stack)
            with self._working("starting the stack"):
                stack.up(f"{self._model}:v1", say=self._say)
            load = cleanup.enter_context(self._start_load())
            with self._working(
                f"{BASELINE_S:.0f} s of traffic to {self._model}:v1 alone, to learn how noisy this machine is"
            ):
                time.sleep(BASELINE_S)
            good = self._release(stack, f"{self._model}:v2", PLAN, load)
            bad = self._release(stack, f"{self._model}:v3", PLAN_BAD, load, crash=self._fault == "crash")
            with self._working("stopping the traffic"):
                summary = load.stop()
        return self._report(good, bad, summary)

    # ---- chapters

    def _empty_state_folder(self) -> None:
        if Stack(self._settings, by="demo").supervisor.is_running:
            raise SetupError(
                "a stack runs in this state folder",
                saw=str(self._root),
                do="stop it with `kanaria down`, or set KANARIA_HOME to another folder",
            )
        if self._settings.ledger.exists() and not (self._root / _MARK).exists():
            raise SetupError(
                "this state folder has a ledger that the demo did not make",
                saw=str(self._settings.ledger),
                do="set KANARIA_HOME to another folder for the demo",
            )
        for entry in self._root.iterdir() if self._root.exists() else ():
            if entry.name != "bentoml":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (self._root / _MARK).parent.mkdir(parents=True, exist_ok=True)
        (self._root / _MARK).touch()

    def _train_and_build(self) -> None:
        bad = {"wrong": "v3", "errors": "v3-errors", "latency": "v3-latency", "crash": "v2"}[self._fault]
        with self._working("training three versions"):
            told = self._python("-m", f"{self._package}.train", *dict.fromkeys(("v1", "v2", bad)))
        for line in told.splitlines():
            self._say(line)
        for version, trained in (("v1", "v1"), ("v2", "v2"), ("v3", bad)):
            tag = f"{self._model}:{version}"
            with self._working(f"bentoml build of {tag}"):
                self._python("-m", "bentoml", "delete", "-y", tag, is_optional=True)
                self._python("-m", "bentoml", "build", "--version", version, "--arg", f"model={self._model}:{trained}")
            self._say(f"built {tag}")
        stored = self._python("-m", "bentoml", "models", "get", "-o", "path", f"{self._model}:v1").strip()
        shutil.copy(Path(stored) / "samples.jsonl", self._settings.samples)

    def _start_load(self) -> RunningLoad:
        scenario = load_scenario("demo")
        with self._working("starting the users"):
            load = start(
                scenario,
                host=self._settings.gateway_url,
                samples=self._settings.samples,
                out_dir=self._root / "loadtest",
                api_key=self._settings.api_key if self._settings.needs_api_key else None,
            )
        self._say(
            f"users: {scenario.shape[0].rate:.0f} requests per second through {self._settings.gateway_url}, "
            f"which leaves most of two cores free"
        )
        return load

    def _release(
        self, stack: Stack, tag: str, plan: RolloutSpec, load: RunningLoad, *, crash: bool = False
    ) -> ReleaseView:
        number = stack.client.release(tag, plan)
        deadline = time.monotonic() + RELEASE_LIMIT_S
        shown, is_crash_due = 0, crash
        with self._console.status("") as status:
            while True:
                release = find_release(self._settings.ledger, str(number))
                for decision in release.decisions[shown:]:
                    self._console.print(screen.decision(decision))
                shown = len(release.decisions)
                live = load.live()
                status.update(
                    f"{tag} at {release.state.weight_percent} %: {release.last_why or 'starting'} · "
                    f"clients: {live.requests:,} requests, {live.failures} failed"
                )
                if release.ended_s is not None or time.monotonic() > deadline:
                    return release
                if is_crash_due and release.state.weight_percent >= CRASH_PERCENT:
                    self._kill(stack, tag)
                    is_crash_due = False
                time.sleep(0.5)

    def _report(self, good: ReleaseView, bad: ReleaseView, summary: Summary) -> DemoResult:
        path = self._root / "demo.html"
        seconds = None
        if bad.first_canary_s and bad.out_of_traffic_s:
            seconds = round(bad.out_of_traffic_s - bad.first_canary_s, 1)
        result = DemoResult(
            promoted=good.canary if good.outcome == "promoted" else None,
            rolled_back=bad.canary if bad.outcome == "rolled_back" else None,
            rollback_signal=bad.state.outcome_signal,
            rollback_reason=one_sentence(bad),
            client_requests=summary.requests,
            client_failures=summary.failures,
            client_failures_of_rolled_back=sum(failure.version == bad.canary for failure in summary.failure_list),
            seconds_to_rollback=seconds,
            canary_requests_until_rollback=bad.canary_requests,
            canary_failures_until_rollback=bad.canary_failures,
            seconds_total=round(time.monotonic() - self._began_s, 1),
            requests_per_second=summary.scenario.shape[0].rate,
            client_p50_ms=summary.scheduled.p50_ms,
            client_p99_ms=summary.scheduled.p99_ms,
            fault=self._fault,
            report=str(path),
        )
        path.write_text(render_report([good, bad], title="Kanaria demo", extra=[_clients(summary)]))
        (self._root / "demo.json").write_text(json.dumps(asdict(result), indent=2) + "\n")
        return result

    # ---- small things

    def _kill(self, stack: Stack, tag: str) -> None:
        info = stack.supervisor.info(tag.replace(":", "@"))
        if info is not None and info.is_alive:
            process = psutil.Process(info.pid)
            for one in (process, *process.children(recursive=True)):
                one.kill()
            self._say(f"killed {tag} (pid {info.pid} and its workers) with SIGKILL in the middle of its step")

    def _down(self, stack: Stack) -> None:
        with self._working("stopping the stack"):
            stack.down(say=lambda _: None)

    def _python(self, *arguments: str, is_optional: bool = False) -> str:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        if done.returncode and not is_optional:
            log = self._root / "failed-command.log"
            log.write_text(done.stdout + done.stderr)
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise StackError(f"`python {' '.join(arguments)}` failed", saw=" ".join(last), do=f"read {log}")
        return done.stdout

    @contextmanager
    def _working(self, what: str) -> Iterator[None]:
        with self._console.status(f"{what} ..."):
            yield

    def _say(self, text: str) -> None:
        self._console.print(f"[dim]{self._clock()}[/] {text}", highlight=False)

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began_s:4.0f} s"


def run_demo(fault: Fault, console: Console) -> DemoResult:
    """Run the demo in the state folder, say what happened and where the report is. Raises StackError."""
    os.environ |= _environment(Settings())
    settings = Settings()
    console.print(f"Kanaria demo in {settings.root}")
    result = Demo(settings, fault, console).run()
    console.print()
    console.print(f"promoted:    {result.promoted or 'nothing'}", style="bold green" if result.promoted else "bold red")
    console.print(
        f"rolled back: {result.rolled_back or 'nothing'}", style="bold green" if result.rolled_back else "bold red"
    )
    console.print(f"             {result.rollback_reason}", highlight=False)
    blame = (
        f", {result.client_failures_of_rolled_back} of them by {result.rolled_back}" if result.client_failures else ""
    )
    clients = f"{result.client_requests:,} requests, {result.client_failures} failed{blame}"
    console.print(f"clients:     {clients}", highlight=False)
    console.print(f"took:        {result.seconds_total:.0f} s", highlight=False)
    for path in (result.report, settings.root / "demo.json"):
        console.print(f"read:        {path}", highlight=False, soft_wrap=True)
    return result


def _environment(settings: Settings) -> dict[str, str]:
    """What the demo's processes share: a Bento store of their own, and ports that are free."""
    environment = {"BENTOML_HOME": str(settings.root / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    for name, port in (("GATEWAY", settings.gateway_port), ("CONTROLLER", settings.controller_port)):
        environment[f"KANARIA_{name}_PORT"] = str(port if is_free(settings.host, port) else free_port())
    return environment


def _example() -> tuple[str, str]:
    """The model's package and the Bento's name, as bentofile.yaml has them."""
    bentofile = yaml.safe_load(Path("bentofile.yaml").read_text())
    package, _, _ = bentofile["args"]["implementation"].rpartition(".")
    return package, bentofile["name"]


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
