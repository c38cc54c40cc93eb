"""When drift reports are made, with the real command, and what becomes of them at the end."""

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
    """Reports all the time, and the result of an earlier one."""
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
    """Its threads are stopped in any case: they would write into the output of other tests."""
    schedule.start()
    try:
        yield
    finally:
        schedule.stop()


def is_reporting() -> bool:
    """Whether a report on the release is being made."""
    return bool(children_with("--release"))


def test_no_report_is_handed_over_once_the_schedule_stops(settings: Settings) -> None:
    """The loop that would take it has ended before: the controller's end waited half a minute for an answer."""
    commands: list[Command] = []
    schedule = DriftSchedule(settings, release=lambda: RELEASE, submit=commands.append, on_crash=print)
    with running(schedule):
        until(is_reporting)
    assert commands == []


@dataclass(frozen=True)
class Heard:
    """What became of reports: commands to the controller, and those that crashed."""

    commands: list[Command] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)

    def listen(self, settings: Settings, until_this: Callable[[], object]) -> None:
        schedule = DriftSchedule(
            settings, release=lambda: RELEASE, submit=self.commands.append, on_crash=self.crashes.append
        )
        with running(schedule):
            until(until_this, limit_s=60)


@pytest.fixture(scope="module")
def first_report(tmp_path_factory: pytest.TempPathFactory) -> Heard:
    """Of a release whose versions have no prediction log yet."""
    heard = Heard()
    with pytest.MonkeyPatch.context() as monkeypatch:
        heard.listen(in_folder(tmp_path_factory.mktemp("home"), monkeypatch), lambda: heard.commands)
    return heard


def test_a_report_on_the_canary_is_handed_over(first_report: Heard) -> None:
    """The newest result that there is about it."""
    assert getattr(first_report.commands[0], "canary", None) == "m:v2"


@pytest.mark.needs("monitoring")
def test_a_log_that_is_not_there_yet_is_no_crash(first_report: Heard) -> None:
    """A report says so, on purpose."""
    assert first_report.crashes == []


@pytest.mark.needs("monitoring")
def test_a_report_that_crashes_is_counted(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code was once that of a report that found drift."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['monitoring.drift.sample'] = sys\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    heard = Heard()
    heard.listen(settings, lambda: heard.crashes)
    assert heard.crashes


def test_a_report_that_was_killed_has_failed() -> None:
    """For want of memory, or after five minutes; what a report says on purpose is no crash."""
    assert has_failed(-9, "")
    assert not any(has_failed(code, "there is no prediction log") for code in (0, 1, 2, 3))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Gives the arguments of each report that was started; none of them finds anything, or takes any time."""
    reports = tmp_path / "reports"
    program = tmp_path / "bin" / "nice"  # what every report is started with
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "report: $*" >> {reports}\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return lambda: reports.read_text().splitlines() if reports.exists() else []


@contextmanager
def watching(settings: Settings, release: Release) -> Iterator[Callable[[], None]]:
    """A schedule that watches this release, and how to wait until it has looked a few times more."""
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


def test_a_canary_that_answers_nothing_is_not_reported_on_again_and_again(
    settings: Settings, made: Callable[[], list[str]]
) -> None:
    """Each report takes a second of a core: a release that waited without requests had one every minute."""
    segment = settings.predictions / version_folder(RELEASE.canary) / segment_name(2.0, 1)
    segment.parent.mkdir(parents=True)
    with watching(settings, RELEASE) as look:
        until(made)
        look()
        assert len(made()) == 1
        segment.write_text("{}\n")
        until(lambda: len(made()) == 2, limit_s=60)
        look()
        assert len(made()) == 2


PROMOTED = replace(RELEASE, phase=Phase.WATCHING, phase_since_s=RESULT.at_s)


@pytest.mark.parametrize(
    ("release", "page_at_s", "reports"),
    [
        (PROMOTED, PROMOTED.phase_since_s, 0),
        (PROMOTED, PROMOTED.phase_since_s - 1, 2),  # it was drawn before, and the one after was not finished
        (PROMOTED, None, 2),
        (replace(PROMOTED, phase_since_s=RESULT.at_s + 1), RESULT.at_s + 2, 2),  # begun before it was promoted
        (replace(PROMOTED, canary="m:v3"), PROMOTED.phase_since_s, 2),
    ],
    ids=["drawn", "drawn before", "not drawn", "begun before", "of another"],
)
def test_a_promoted_version_is_reported_on_once_however_often_the_controller_starts(
    settings: Settings, made: Callable[[], list[str]], release: Release, page_at_s: float | None, reports: int
) -> None:
    """Each start of a controller made both reports anew, with pages that take seconds, and used up error budget."""
    if page_at_s is not None:
        page = result_path(settings, "release").with_suffix(".html")
        page.touch()
        os.utime(page, (page_at_s, page_at_s))
    with watching(settings, release) as look:
        until(lambda: len(made()) >= reports, limit_s=60)
        look()
    assert ["--quick" in report for report in made()] == [True, False][:reports]


def test_a_report_that_cannot_be_started_ends_no_schedule(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full process tables and files that are gone ended both threads for good, without a word."""
    monkeypatch.setenv("PATH", "/nonexistent")
    heard = Heard()
    heard.listen(settings, lambda: {"data", "release"} <= set(heard.crashes) and len(heard.crashes) > 4)
    assert heard.commands == []
