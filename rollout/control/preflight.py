"""Tests a canary before its first request, beside the control loop. What is tested is up to the `Preflight`."""

import threading
from concurrent.futures import Future
from typing import Protocol

import structlog

from rollout.fleet import Backend, Health, VersionStatus
from rollout.ledger.findings import PreflightResult
from rollout.ledger.state import Phase, Release

log = structlog.get_logger()


class Preflight(Protocol):
    """Tests a canary with requests of its own."""

    def check(self, canary: Backend, stable: str) -> PreflightResult:
        """Compare the answers of `canary` with the expected ones, and the requests it accepts with those of `stable`.

        The canary is ready. This may take seconds. Whatever goes wrong on the way is a difference, not an error.
        """


class PreflightRun:
    """The preflight of one release, in a thread of its own: a canary that hangs must not hold up the loop."""

    def __init__(self, preflight: Preflight | None) -> None:
        """
        Args:
            preflight: None: no preflight is wanted.
        """
        self._preflight = preflight
        self._result: Future[PreflightResult] | None = None  # None: not begun

    def is_due(self, release: Release) -> bool:
        """Whether a preflight is wanted and has no result yet."""
        is_untested = release.phase is Phase.STARTING and release.preflight_differences is None
        return is_untested and self._preflight is not None

    def result(self, release: Release, canary: VersionStatus) -> PreflightResult | None:
        """Begin once the canary is ready. Returns the result; None until it is over."""
        if self._result is None and canary.health is Health.READY and canary.backends:
            self._result = Future()
            arguments = (self._result, canary.backends[0], release.stable)
            threading.Thread(target=self._work, args=arguments, name="preflight", daemon=True).start()
        return self._result.result() if self._result and self._result.done() else None

    def _work(self, result: Future[PreflightResult], canary: Backend, stable: str) -> None:
        if self._preflight is None:
            return
        try:
            found = self._preflight.check(canary, stable)
        except Exception as error:
            # A canary that cannot be tested is not known to be good.
            log.exception("preflight_failed", canary=canary.tag)
            found = PreflightResult(differences=(f"it could not be tested: {error}",))
        result.set_result(found)
