"""Drift on a schedule, in the controller's process: when to look, and whom to tell.

Each look is `kanaria drift report` in a process of its own with lower priority, so that it takes neither memory
nor time from the control loop, and processor time from the versions only when they leave some.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf

import structlog

from kanaria.drift import result_path
from kanaria.settings import Settings
from monitoring.drift.result import DriftResult, read_result
from rollout.commands import Command, ReportDrift
from rollout.errors import RolloutError
from rollout.interfaces import DriftedColumn, DriftReport
from rollout.state import Phase, Release

log = structlog.get_logger()

RELEASE_EVERY_S = 60.0  # at most; a release is short, and its look is quick
_LONGEST_LOOK_S = 300.0
_BEAT_S = 0.5
_NICE = "15"


class DriftJob:
    """Looks at the traffic every so often, and during a release at the canary too.

    Args:
        settings: how often, how far back, and where the logs lie.
        release: gives the release that runs now.
        submit: hands the controller a command.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        release: Callable[[], Release | None],
        submit: Callable[[Command], object],
    ) -> None:
        self._settings, self._release, self._submit = settings, release, submit
        self._result = result_path(settings, "release")
        self._stop = threading.Event()
        # A release does not wait for the look at the traffic, which takes longer.
        self._threads = [threading.Thread(target=run) for run in (self._watch_traffic, self._watch_releases)]

    def start(self) -> None:
        """Begin, unless the settings say never."""
        if self._settings.drift_every_s:
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        """End, and with it the looks that are under way."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    @property
    def _release_every_s(self) -> float:
        return min(self._settings.drift_every_s, RELEASE_EVERY_S)

    def _watch_traffic(self) -> None:
        wait_s = self._release_every_s  # the first time; before there is hardly any traffic
        while not self._stop.wait(wait_s):
            self._look("--last", f"{self._settings.drift_last_s:g}s")
            wait_s = self._settings.drift_every_s

    def _watch_releases(self) -> None:
        """Look every so often while a release steps, and once more when it was promoted: then all rows are there."""
        number, phase, due_s = 0, Phase.STARTING, 0.0
        while not self._stop.wait(_BEAT_S):
            release, now_s = self._release(), time.monotonic()
            if release is None or release.phase not in (Phase.STEPPING, Phase.WATCHING):
                continue
            if (release.number, release.phase) != (number, phase):
                number, phase = release.number, release.phase
                due_s = now_s + self._release_every_s if phase is Phase.STEPPING else now_s
            if now_s >= due_s:
                self._look_at(release)
                if phase is Phase.WATCHING:
                    self._look("--release", str(number))  # and once with pages, which nobody has to wait for
                due_s = now_s + self._release_every_s if phase is Phase.STEPPING else inf

    def _look_at(self, release: Release) -> None:
        self._look("--release", str(release.number), "--quick")
        result = read_result(self._result)
        if result is None or result.version != release.canary or result.at_s < release.requested_s:
            return
        try:
            self._submit(ReportDrift(release.canary, as_report(result)))
        except (RolloutError, TimeoutError) as error:  # it ended meanwhile, or nothing can be written
            log.warning("drift_not_told", release=release.number, error=str(error))

    def _look(self, *arguments: str) -> None:
        command = ["nice", "-n", _NICE, sys.executable, "-m", "kanaria", "drift", "report", "--json", *arguments]
        began_s, said = time.monotonic(), ""
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    _, said = process.communicate(timeout=_BEAT_S)
                if self._stop.is_set() or time.monotonic() - began_s > _LONGEST_LOOK_S:
                    process.terminate()
        log.info(
            "drift_looked",
            arguments=arguments,
            exit_code=process.returncode,  # 0 none, 1 drift, 3 too few rows; else it could not look
            took_s=round(time.monotonic() - began_s, 1),
            said=said.strip()[-500:] or None,  # why it could not look, or that its history was set aside
        )


def as_report(result: DriftResult) -> DriftReport:
    """A release's drift as the ledger keeps it."""
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
