"""The demo in which the traffic drifts: users come with another camera while a better version is released.

The drift report names it, the alert fires, and nobody is rolled back for it: it hits every version alike.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass

import httpx

from kanaria.errors import StackError
from kanaria.settings import Settings
from kanaria.stage import Stage
from loadtest.results import Summary
from loadtest.scenario import load_scenario
from monitoring.drift.result import DriftResult, State
from rollout.report import Section
from rollout.spec import RolloutSpec
from rollout.view import ReleaseView

ALERT = "KanariaDataDrift"
LOOK_BACK_S = 20  # a short story has no hour to look back on; so long the users come before each report
_SHOWN_COLUMNS = 5
_ALERT_WITHIN_S = 30.0
# The scheduled job's first look falls into the release; one at the same time as the story's own slows both down.
_LOOKS = {"KANARIA_DRIFT_EVERY_S": "60", "KANARIA_DRIFT_LAST_S": str(LOOK_BACK_S)}


@dataclass(frozen=True, slots=True)
class NamedColumn:
    """A column that drifted."""

    column: str
    direction: str
    score: float
    threshold: float
    says: str


@dataclass(frozen=True, slots=True)
class DriftTold:
    """What `demo.json` says about the drift."""

    before: str  # what a report came to before the other camera
    found: str  # and after
    sentence: str
    rows: int
    columns: int
    drifted_columns: int
    rose: int  # of these
    worst: tuple[NamedColumn, ...]
    alert: str
    alert_fired: bool | None  # None: there is no Prometheus here that could
    seconds_to_alert: float | None  # from the first request of the other camera

    @property
    def is_as_promised(self) -> bool:
        return (self.before, self.found) == (State.NO_DRIFT, State.DRIFT) and self.alert_fired is not False


@dataclass(frozen=True, slots=True)
class DriftStory:
    """What happened."""

    release: ReleaseView
    told: DriftTold
    users: tuple[Summary, Summary]  # before and after


def play(stage: Stage, plan: RolloutSpec, *, limit_s: float) -> DriftStory:
    """Play it. Raises StackError, LoadTestError, RolloutError."""
    os.environ |= _LOOKS  # for the controller that the stack starts
    stage.build({"v1": "v1", "v2": "v2"})
    retaken, scenario = stage.retaken_samples(), load_scenario("demo")
    with stage.up("v1"):
        with stage.users(scenario) as load:
            stage.wait(LOOK_BACK_S, "traffic to v1 alone")
            before = _report(stage, "--quick")
            first = load.stop()
        stage.say(f"before: {before.sentence}")
        began_s = time.monotonic()
        with stage.users(scenario, samples=retaken) as load:
            stage.say("the users have another camera: digits come brighter and blurred")
            stage.wait(LOOK_BACK_S, "digits of the other camera")
            found = _report(stage)
            stage.say(f"now: {found.sentence}")
            fired = _alert_fires(stage)
            seconds = round(time.monotonic() - began_s, 1) if fired else None
            stage.say(
                f"alert {ALERT}: {'firing' if fired else 'not firing' if fired is False else 'no Prometheus here'}"
            )
            release = stage.release("v2", plan, load, limit_s=limit_s)
            with stage.working("stopping the users"):
                second = load.stop()
    return DriftStory(release, _told(before, found, fired, seconds), (first, second))


def in_words(told: DriftTold) -> tuple[str, str]:
    """What was found, and whether anybody was told."""
    alert = "could not be seen: there is no Prometheus here"
    if told.alert_fired is not None:
        alert = f"fired {told.seconds_to_alert:.0f} s after the change" if told.alert_fired else "did not fire"
    return (
        f"{told.sentence[:1].upper()}{told.sentence[1:]}.",
        f"The alert {told.alert} {alert}. It rolls nothing back: data drift hits every version alike.",
    )


def section(told: DriftTold, settings: Settings) -> Section:
    """The drift, for the report."""
    return Section(
        title="What the drift report says",
        lines=(*in_words(told), f"Evidently's page: {settings.drift / 'data.html'}."),
        columns=("column", "what changed", "distance", "matters from"),
        rows=tuple((one.column, one.says, f"{one.score:.2f}", f"{one.threshold:g}") for one in told.worst),
    )


def _report(stage: Stage, *arguments: str) -> DriftResult:
    with stage.working("kanaria drift report"):
        last = ("--last", f"{LOOK_BACK_S}s")
        command = [sys.executable, "-m", "kanaria", "drift", "report", "--json", *last, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise StackError("the drift report failed", saw=done.stderr.strip()[-300:], do="run `kanaria drift report`")
    return DriftResult.model_validate_json(done.stdout)


def _alert_fires(stage: Stage) -> bool | None:
    """Whether Prometheus says so within half a minute; None where there is none."""
    address = stage.settings.prometheus_address
    if not address.exists():
        return None
    deadline = time.monotonic() + _ALERT_WITHIN_S
    with stage.working(f"waiting for {ALERT}"):
        while time.monotonic() < deadline:
            alerts = httpx.get(f"{address.read_text().strip()}/api/v1/alerts", timeout=5.0, trust_env=False).json()
            if any(
                alert["labels"]["alertname"] == ALERT and alert["state"] == "firing"
                for alert in alerts["data"]["alerts"]
            ):
                return True
            time.sleep(0.5)
    return False


def _told(before: DriftResult, found: DriftResult, fired: bool | None, seconds: float | None) -> DriftTold:
    return DriftTold(
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
