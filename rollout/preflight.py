"""Tries a canary out before its first request, beside the control loop.

The controller asks on every beat until there is a result. What is tried, only the `Preflight` knows.
"""

import threading
from concurrent.futures import Future

import structlog

from rollout.interfaces import Backend, Preflight, PreflightResult

log = structlog.get_logger()


class PreflightRun:
    """One preflight in a thread of its own: a canary that hangs must not hold up the loop."""

    def __init__(self, preflight: Preflight, canary: Backend, stable: str) -> None:
        self._preflight, self._canary, self._stable = preflight, canary, stable
        self._result: Future[PreflightResult] = Future()
        threading.Thread(target=self._run, name="preflight", daemon=True).start()

    @property
    def result(self) -> PreflightResult | None:
        """What was found out; None while it runs."""
        return self._result.result() if self._result.done() else None

    def _run(self) -> None:
        try:
            result = self._preflight.check(self._canary, self._stable)
        except Exception as error:
            # What cannot be tried out is not known to be good.
            log.exception("preflight_failed", canary=self._canary.tag)
            result = PreflightResult(differences=(f"it could not be tried out: {error}",))
        self._result.set_result(result)
