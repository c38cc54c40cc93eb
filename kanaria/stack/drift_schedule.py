"""Makes drift reports on a schedule. The controller's process starts it.

Each report is `kanaria drift report` in its own process with lower priority: it does not slow the control loop, and
uses only CPU time that the versions leave free.
"""

import logging
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path

import structlog

from contract.prediction_log import SEGMENTS, version_folder
from kanaria.settings import Settings
from kanaria.stack.drift_results import result_path
from kanaria.stack.python import own_module
from monitoring.drift.result import DriftResult, Kind, read_result
from rollout.control.commands import Command, ReportDrift
from rollout.errors import RolloutError
from rollout.ledger.findings import DriftedColumn, DriftReport
from rollout.ledger.state import Phase, Release

log = structlog.get_logger()

RELEASE_EVERY_S = 60.0  # at most: a release is short, and its report is quick
QUIET_EVERY_S = 600.0  # while neither version logs answers: only labels may be new
_LONGEST_REPORT_S = 300.0
_POLL_S = 0.5
_NICE = "15"
_TRACEBACK = "Traceback (most recent call last)"


class DriftSchedule:
    """Reports on the drift of the traffic at intervals, and during a release on the canary against stable.

    Args:
        settings: the intervals, the time span and the paths of the logs.
        release: returns the running release.
        submit: passes a command to the controller.
        on_crash: called for each report that crashed or was killed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        release: Callable[[], Release | None],
        submit: Callable[[Command], object],
        on_crash: Callable[[Kind], object],
    ) -> None:
        self._settings, self._release, self._submit, self._on_crash = settings, release, submit, on_crash
        self._result = result_path(settings, "release")
        self._stop = threading.Event()
        # Two threads: the report on the traffic takes longer, and releases must not wait for it.
        watched: tuple[tuple[Callable[[], None], Kind], ...] = (
            (self._watch_traffic, "data"),
            (self._watch_releases, "release"),
        )
        self._threads = [threading.Thread(target=self._keep_on, args=each) for each in watched]

    def start(self) -> None:
        """Start the threads, unless the settings turn reports off."""
        if self._settings.drift_every_s:
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        """End the threads and running reports."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    @property
    def _release_every_s(self) -> float:
        return min(self._settings.drift_every_s, RELEASE_EVERY_S)

    def _keep_on(self, watch: Callable[[], None], kind: Kind) -> None:
        """Run `watch`, and again after any error: if no process could start now, one may later."""
        while not self._stop.is_set():
            try:
                watch()
            except Exception:
                log.exception("drift_schedule_failed", kind=kind)
                self._on_crash(kind)
                self._stop.wait(_POLL_S)

    def _watch_traffic(self) -> None:
        wait_s = self._release_every_s  # the first time: earlier there is hardly any traffic
        while not self._stop.wait(wait_s):
            self._look("--last", f"{self._settings.drift_last_s:g}s")
            wait_s = self._settings.drift_every_s

    def _watch_releases(self) -> None:
        """Report at intervals during a release, and once more after promotion, when all rows are logged."""
        number, phase, due_s = 0, Phase.STARTING, 0.0
        logged, again_s = None, 0.0  # log sizes at the last report; when the next one is due even without new rows
        while not self._stop.wait(_POLL_S):
            release, now_s = self._release(), time.monotonic()
            if release is None or release.phase not in (Phase.STEPPING, Phase.WATCHING):
                continue
            if (release.number, release.phase) != (number, phase):
                number, phase, logged = release.number, release.phase, None
                due_s = now_s + self._release_every_s if phase is Phase.STEPPING else now_s
                if phase is Phase.WATCHING and self._has_pages(release):
                    due_s = inf
            if now_s < due_s:
                continue
            due_s = now_s + self._release_every_s if phase is Phase.STEPPING else inf
            found = self._logged(release)
            if found == logged and now_s < again_s:
                continue
            logged, again_s = found, now_s + QUIET_EVERY_S
            self._look_at(release)
            if phase is Phase.WATCHING:
                self._look("--release", str(number))  # with pages, which take longer

    def _has_pages(self, release: Release) -> bool:
        """Whether the pages exist already, because an earlier controller made them after the promotion."""
        result = read_result(self._result)
        if result is None or result.version != release.canary or result.at_s < release.phase_since_s:
            return False
        with suppress(OSError):
            return self._result.with_suffix(".html").stat().st_mtime >= release.phase_since_s
        return False

    def _logged(self, release: Release) -> dict[Path, int]:
        """The size of each log file of both versions, bytes."""
        found = {}
        for tag in (release.stable, release.canary):
            for path in (self._settings.predictions / version_folder(tag)).glob(SEGMENTS):
                with suppress(OSError):  # it has just been removed
                    found[path] = path.stat().st_size
        return found

    def _look_at(self, release: Release) -> None:
        self._look("--release", str(release.number), "--quick")
        if self._stop.is_set():  # the controller accepts no more commands: `submit` would delay the end
            return
        result = read_result(self._result)
        if result is None or result.version != release.canary or result.at_s < release.requested_s:
            return
        try:
            self._submit(ReportDrift(release.canary, as_report(result)))
        except (RolloutError, TimeoutError) as error:  # the release ended meanwhile, or the ledger cannot be written
            log.warning("drift_not_told", release=release.number, error=str(error))

    def _look(self, *arguments: str) -> None:
        command = ["nice", "-n", _NICE, *own_module("kanaria", "drift", "report", "--json", *arguments)]
        began_s, output = time.monotonic(), ""
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as process:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    _, output = process.communicate(timeout=_POLL_S)
                if self._stop.is_set() or time.monotonic() - began_s > _LONGEST_REPORT_S:
                    process.terminate()
        has_crashed = has_failed(process.returncode, output) and not self._stop.is_set()
        if has_crashed:
            self._on_crash("release" if "--release" in arguments else "data")
        log.log(
            logging.ERROR if has_crashed else logging.INFO,
            "drift_reported",
            arguments=arguments,
            exit_code=process.returncode,  # 0 no drift, 1 drift, 2 an error, 3 too few rows
            took_s=round(time.monotonic() - began_s, 1),
            output=output.strip()[-500:] or None,  # why it failed, or that its history was set aside
        )


def has_failed(exit_code: int, output: str) -> bool:
    """Whether a report crashed or was killed. A reported error, such as a missing log, is not a crash."""
    return exit_code not in (0, 1, 2, 3) or _TRACEBACK in output


def as_report(result: DriftResult) -> DriftReport:
    """The drift of a release in the form of the ledger."""
    return DriftReport(
        state=result.state.value,
        sentence=result.sentence,
        rows=result.rows,
        columns=len(result.columns),
        look=result.look,
        drifted=tuple(
            DriftedColumn(column.column, column.score, column.threshold, column.p_value, column.says)
            for column in result.drifted
        ),
    )
