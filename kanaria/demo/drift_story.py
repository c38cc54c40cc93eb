"""The demo of drifting traffic: users switch to another camera while a better version is released.

The drift report finds the change and the alert fires. The release is not rolled back for it, because the change hits
every version alike.
"""

import os
import subprocess
import time
from dataclasses import dataclass

from contract import loopback
from kanaria.demo.digits import DigitsDemo
from kanaria.demo.environment import DemoEnvironment
from kanaria.errors import StackError
from kanaria.settings import Settings
from kanaria.stack.python import own_module
from loadtest.results import Summary
from monitoring.drift.result import DriftResult, State
from rollout.explain.timeline import Timeline
from rollout.format import sentence
from rollout.spec import RolloutSpec
from rollout.ui.report import Section

ALERT = "KanariaDataDrift"
LOOK_BACK_S = 20  # seconds of traffic in each report; the demo is too short for the usual hour
_SHOWN_COLUMNS = 5
_ALERT_WITHIN_S = 30.0
# The first scheduled report falls into the release: at the time of the demo's own reports it would slow both down.
_SCHEDULE = {"KANARIA_DRIFT_EVERY_S": "60", "KANARIA_DRIFT_LAST_S": str(LOOK_BACK_S)}


@dataclass(frozen=True, slots=True)
class NamedColumn:
    """A column that drifted."""

    column: str
    direction: str
    score: float
    threshold: float
    says: str


@dataclass(frozen=True, slots=True)
class DriftSummary:
    """The part of `demo.json` about the drift."""

    before: str  # result of the report before the other camera
    found: str  # result of the report after
    sentence: str
    rows: int
    columns: int
    drifted_columns: int
    rose: int  # of the drifted columns
    worst: tuple[NamedColumn, ...]
    alert: str
    alert_fired: bool | None  # None: no Prometheus runs here
    seconds_to_alert: float | None  # after the first request of the other camera

    @property
    def is_as_promised(self) -> bool:
        return (self.before, self.found) == (State.NO_DRIFT, State.DRIFT) and self.alert_fired is not False


@dataclass(frozen=True, slots=True)
class DriftStory:
    """The result of the demo."""

    release: Timeline
    summary: DriftSummary
    users: tuple[Summary, Summary]  # before and after


def run(environment: DigitsDemo, plan: RolloutSpec, *, limit_s: float) -> DriftStory:
    """Run the demo. Raises StackError, LoadTestError, RolloutError."""
    os.environ |= _SCHEDULE  # for the controller that the stack starts
    environment.build({"v1": "v1", "v2": "v2"})
    retaken = environment.retaken_samples()
    with environment.up("v1"):
        with environment.users() as load:
            environment.wait(LOOK_BACK_S, "traffic to v1 alone")
            before = _report(environment, "--quick")
            first = load.stop()
        environment.say(f"before: {before.sentence}")
        began_s = time.monotonic()
        with environment.users(samples=retaken) as load:
            environment.say("the users have another camera: digits come brighter and blurred")
            environment.wait(LOOK_BACK_S, "digits of the other camera")
            found = _report(environment)
            environment.say(f"now: {found.sentence}")
            fired = _alert_fires(environment)
            seconds = round(time.monotonic() - began_s, 1) if fired else None
            environment.say(
                f"alert {ALERT}: {'firing' if fired else 'not firing' if fired is False else 'no Prometheus here'}"
            )
            release = environment.release("v2", plan, load, limit_s=limit_s)
            with environment.working("stopping the users"):
                second = load.stop()
    return DriftStory(release, _summary(before, found, fired, seconds), (first, second))


def in_words(summary: DriftSummary) -> tuple[str, str]:
    """The finding, and whether the alert fired, as sentences."""
    alert = "could not be seen: there is no Prometheus here"
    if summary.alert_fired is not None:
        alert = f"fired {summary.seconds_to_alert:.0f} s after the change" if summary.alert_fired else "did not fire"
    return (
        f"{sentence(summary.sentence)}.",
        f"The alert {summary.alert} {alert}. It rolls nothing back: data drift hits every version alike.",
    )


def section(summary: DriftSummary, settings: Settings) -> Section:
    """The section about drift of the report."""
    return Section(
        title="What the drift report says",
        lines=(*in_words(summary), f"Evidently's page: {settings.drift / 'data.html'}."),
        columns=("column", "what changed", "distance", "matters from"),
        rows=tuple((one.column, one.says, f"{one.score:.2f}", f"{one.threshold:g}") for one in summary.worst),
    )


def _report(environment: DemoEnvironment, *arguments: str) -> DriftResult:
    with environment.working("kanaria drift report"):
        last = ("--last", f"{LOOK_BACK_S}s")
        command = own_module("kanaria", "drift", "report", "--json", *last, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise StackError("the drift report failed", saw=done.stderr.strip()[-300:], do="run `kanaria drift report`")
    return DriftResult.model_validate_json(done.stdout)


def _alert_fires(environment: DemoEnvironment) -> bool | None:
    """Whether the alert fires within half a minute; None if no Prometheus runs."""
    address = environment.settings.prometheus_address
    if not address.exists():
        return None
    deadline = time.monotonic() + _ALERT_WITHIN_S
    with environment.working(f"waiting for {ALERT}"):
        while time.monotonic() < deadline:
            login = environment.settings.prometheus_login
            with loopback.client(address.read_text().strip(), timeout_s=5.0, login=login) as prometheus:
                alerts = prometheus.get("/api/v1/alerts").json()
            if any(
                alert["labels"]["alertname"] == ALERT and alert["state"] == "firing"
                for alert in alerts["data"]["alerts"]
            ):
                return True
            time.sleep(0.5)
    return False


def _summary(before: DriftResult, found: DriftResult, fired: bool | None, seconds: float | None) -> DriftSummary:
    return DriftSummary(
        before=before.state.value,
        found=found.state.value,
        sentence=found.sentence,
        rows=found.rows,
        columns=len(found.columns),
        drifted_columns=len(found.drifted),
        rose=sum(column.direction == "up" for column in found.drifted),
        worst=tuple(
            NamedColumn(one.column, one.direction, round(one.score, 3), one.threshold, one.says)
            for one in found.drifted[:_SHOWN_COLUMNS]
        ),
        alert=ALERT,
        alert_fired=fired,
        seconds_to_alert=seconds,
    )
