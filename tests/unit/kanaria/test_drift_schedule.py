"""When drift reports are made, with the real command, and how the schedule ends."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from contract.prediction_log import segment_name, version_folder
from kanaria.settings import Settings
from kanaria.stack.drift_results import result_path
from kanaria.stack.drift_schedule import DriftSchedule, has_failed
from monitoring.drift.result import DriftResult, State
from rollout.control.commands import Command
from rollout.ledger.state import Phase, Release
from rollout.spec import RolloutSpec
from tests.support.children import children_with
from tests.support.processes import until

RELEASE = Release(
    number=1, canary="m:v2", stable="m:v1", spec=RolloutSpec(), requested_s=1.0, by="me", phase=Phase.STEPPING
)
RESULT = DriftResult(
    kind="release",
    version="m:v2",
    against="m:v1",
    state=State.TOO_FEW_ROWS,
    at_s=2.0,
    since_s=1.0,
    until_s=2.0,
    logged_requests=0,
    logged_rows=0,
    rows=0,
    reference_rows=0,
    labelled_rows=0,
    min_rows=1,
    min_requests=1,
    alpha=0.01,
    columns=(),
)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with permanent reports and the result of an earlier report."""
    return in_folder(tmp_path, monkeypatch)


def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("KANARIA_HOME", str(folder))
    monkeypatch.setenv("KANARIA_DRIFT_EVERY_S", "0.01")
    made = Settings()
    path = result_path(made, "release")
    path.parent.mkdir(parents=True)
    path.write_text(RESULT.model_dump_json())
    return made


@contextmanager
def running(schedule: DriftSchedule) -> Iterator[None]:
    """A running schedule. Its threads always stop, because they would write into the output of other tests."""
    schedule.start()
    try:
        yield
    finally:
        schedule.stop()


def is_reporting() -> bool:
    """Whether a report on the release is in progress."""
    return bool(children_with("--release"))


def test_no_report_is_submitted_after_the_schedule_stops(settings: Settings) -> None:
    """The loop that would accept it had already ended, so the controller waited half a minute for an answer at exit."""
    commands: list[Command] = []
    schedule = DriftSchedule(settings, release=lambda: RELEASE, submit=commands.append, on_crash=print)
    with running(schedule):
        until(is_reporting)
    assert commands == []


@dataclass(frozen=True)
class Outcomes:
    """The outcome of reports: the commands sent to the controller and the reports that crashed."""

    commands: list[Command] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)

    def listen(self, settings: Settings, until_this: Callable[[], object]) -> None:
        schedule = DriftSchedule(
            settings, release=lambda: RELEASE, submit=self.commands.append, on_crash=self.crashes.append
        )
        with running(schedule):
            until(until_this, limit_s=60)


@pytest.fixture(scope="module")
def first_report(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """The first report on a release whose versions have no prediction log yet."""
    outcomes = Outcomes()
    with pytest.MonkeyPatch.context() as monkeypatch:
        outcomes.listen(in_folder(tmp_path_factory.mktemp("home"), monkeypatch), lambda: outcomes.commands)
    return outcomes


def test_a_report_on_the_canary_is_submitted(first_report: Outcomes) -> None:
    """The newest result about the canary goes to the controller."""
    assert getattr(first_report.commands[0], "canary", None) == "m:v2"


@pytest.mark.needs("monitoring")
def test_a_missing_log_is_not_a_crash(first_report: Outcomes) -> None:
    """The report itself says that the log is missing."""
    assert first_report.crashes == []


@pytest.mark.needs("monitoring")
def test_a_report_that_crashes_is_counted(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code used to equal that of a report that found drift."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['monitoring.drift.sample'] = sys\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    outcomes = Outcomes()
    outcomes.listen(settings, lambda: outcomes.crashes)
    assert outcomes.crashes


def test_a_killed_report_has_failed() -> None:
    """It may be killed for lack of memory or after five minutes.

    An exit that the report chose itself is not a crash.
    """
    assert has_failed(-9, "")
    assert not any(has_failed(code, "there is no prediction log") for code in (0, 1, 2, 3))


@pytest.fixture
def started_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Returns the arguments of each started report; the reports are empty and take no time."""
    reports = tmp_path / "reports"
    program = tmp_path / "bin" / "nice"  # every report is started with this program
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "report: $*" >> {reports}\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return lambda: reports.read_text().splitlines() if reports.exists() else []


@contextmanager
def watching(settings: Settings, release: Release) -> Iterator[Callable[[], None]]:
    """A schedule that watches this release; yields a function that waits until it has looked a few more times."""
    looks = []

    def looked_at() -> Release:
        looks.append(True)
        return release

    def look() -> None:
        after = len(looks) + 4
        until(lambda: len(looks) >= after, limit_s=60)

    schedule = DriftSchedule(settings, release=looked_at, submit=lambda _: None, on_crash=print)
    thread = threading.Thread(target=schedule._watch_releases)
    thread.start()
    try:
        yield look
    finally:
        schedule.stop()
        thread.join()


def test_an_idle_canary_is_not_reported_on_repeatedly(
    settings: Settings, started_reports: Callable[[], list[str]]
) -> None:
    """Each report takes one second of CPU time, and a waiting release without requests had one every minute."""
    segment = settings.predictions / version_folder(RELEASE.canary) / segment_name(2.0, 1)
    segment.parent.mkdir(parents=True)
    with watching(settings, RELEASE) as look:
        until(started_reports)
        look()
        assert len(started_reports()) == 1
        segment.write_text("{}\n")
        until(lambda: len(started_reports()) == 2, limit_s=60)
        look()
        assert len(started_reports()) == 2


PROMOTED = replace(RELEASE, phase=Phase.WATCHING, phase_since_s=RESULT.at_s)


@pytest.mark.parametrize(
    ("release", "page_at_s", "reports"),
    [
        (PROMOTED, PROMOTED.phase_since_s, 0),
        (PROMOTED, PROMOTED.phase_since_s - 1, 2),  # the page is older, and the next report was not finished
        (PROMOTED, None, 2),
        (replace(PROMOTED, phase_since_s=RESULT.at_s + 1), RESULT.at_s + 2, 2),  # started earlier
        (replace(PROMOTED, canary="m:v3"), PROMOTED.phase_since_s, 2),
    ],
    ids=["page exists", "older page", "no page", "started before", "other version"],
)
def test_a_promoted_version_is_reported_on_once_despite_restarts(
    settings: Settings,
    started_reports: Callable[[], list[str]],
    release: Release,
    page_at_s: float | None,
    reports: int,
) -> None:
    """Each start of a controller made both reports again.

    Their pages take seconds, and this used up the error budget.
    """
    if page_at_s is not None:
        page = result_path(settings, "release").with_suffix(".html")
        page.touch()
        os.utime(page, (page_at_s, page_at_s))
    with watching(settings, release) as look:
        until(lambda: len(started_reports()) >= reports, limit_s=60)
        look()
    assert ["--quick" in report for report in started_reports()] == [True, False][:reports]


def test_a_report_that_cannot_start_does_not_stop_the_schedule(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full process table or a missing file silently ended both threads permanently."""
    monkeypatch.setenv("PATH", "/nonexistent")
    outcomes = Outcomes()
    outcomes.listen(settings, lambda: {"data", "release"} <= set(outcomes.crashes) and len(outcomes.crashes) > 4)
    assert outcomes.commands == []
