"""Tries a canary out before its first request, beside the control loop.

The controller asks on every beat until there is a result. What is tried, only the `Preflight` knows.
"""

import threading
from concurrent.futures import Future

import structlog

from rollout.interfaces import Backend, Health, Preflight, PreflightResult, VersionStatus
from rollout.state import Phase, Release

log = structlog.get_logger()


class PreflightDesk:
    """The preflight of the present release, where one is wanted."""

    def __init__(self, preflight: Preflight | None) -> None:
        self._preflight = preflight
        self._run: _PreflightRun | None = None

    def forget(self) -> None:
        """A new release begins."""
        self._run = None

    def awaits(self, release: Release) -> bool:
        """Whether the canary is to be tried out, and was not yet."""
        is_due = release.phase is Phase.STARTING and release.preflight_differences is None
        return is_due and self._preflight is not None

    def try_out(self, release: Release, canary: VersionStatus) -> PreflightResult | None:
        """Begin once the canary is ready. What was found; None until it is over."""
        if self._preflight is None or canary.health is not Health.READY or canary.backend is None:
            return None
        if self._run is None:
            self._run = _PreflightRun(self._preflight, canary.backend, release.stable)
        return self._run.result


class _PreflightRun:
    """One preflight in a thread of its own: a canary that hangs must not hold up the loop."""

    def __init__(self, preflight: Preflight, canary: Backend, stable: str) -> None:
        self._preflight, self._canary, self._stable = preflight, canary, stable
        self._result: Future[PreflightResult] = Future()
        threading.Thread(target=self._work, name="preflight", daemon=True).start()

    @property
    def result(self) -> PreflightResult | None:
        """What was found out; None while it runs."""
        return self._result.result() if self._result.done() else None

    def _work(self) -> None:
        try:
            result = self._preflight.check(self._canary, self._stable)
        except Exception as error:
            # What cannot be tried out is not known to be good.
            log.exception("preflight_failed", canary=self._canary.tag)
            result = PreflightResult(differences=(f"it could not be tried out: {error}",))
        self._result.set_result(result)
