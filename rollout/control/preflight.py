"""Runs a canary's preflight before its first request, in a thread beside the control loop."""

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from rollout.fleet import Backend, Health, VersionStatus
from rollout.ledger.findings import PreflightResult
from rollout.ledger.state import Phase, Release
from rollout.spec import RolloutSpec

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that callers of stable rely on and that the canary lacks."""

    place: str  # as in a plan's `may_break`: a route, or a route and one of its fields
    says: str

    def is_allowed(self, may_break: Iterable[str]) -> bool:
        """Whether a plan accepts the loss, by its place or by its whole route."""
        return not {self.place, self.place.partition(" ")[0]}.isdisjoint(may_break)


class Preflight(Protocol):
    """Tests a canary with requests of its own."""

    def losses(self, canary: str, stable: str) -> tuple[Loss, ...]:
        """What callers of `stable` would miss in `canary`, as far as it is known without running the two versions.

        Raises KanariaError where the description of a version cannot be read.
        """

    def check(
        self, canary: Backend, stable: str, plan: RolloutSpec, *, beside: Backend | None = None
    ) -> PreflightResult:
        """Compare the answers of `canary` with the expected ones, and the requests it accepts with those of `stable`.

        The canary is ready. This may take seconds. Any failure is reported as a difference and never raised.

        Args:
            beside: where stable answers; None: it does not answer.
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

    def result(self, release: Release, canary: VersionStatus, stable: VersionStatus) -> PreflightResult | None:
        """Begin once the canary is ready. Returns the result; None until it is over."""
        if self._result is None and canary.health is Health.READY and canary.backends:
            result: Future[PreflightResult] = Future()
            beside = stable.backends[0] if stable.health is Health.READY and stable.backends else None
            arguments = (result, canary.backends[0], release, beside)
            try:
                threading.Thread(target=self._work, args=arguments, name="preflight", daemon=True).start()
            except RuntimeError as error:  # the system is out of threads: the next beat tries again
                log.warning("preflight_not_begun", canary=canary.backends[0].tag, error=str(error))
                return None
            self._result = result
        return self._result.result() if self._result and self._result.done() else None

    def _work(self, result: Future[PreflightResult], canary: Backend, release: Release, beside: Backend | None) -> None:
        if self._preflight is None:
            return
        try:
            found = self._preflight.check(canary, release.stable, release.spec, beside=beside)
        except Exception as error:
            # A canary that cannot be tested counts as failed.
            log.exception("preflight_failed", canary=canary.tag)
            found = PreflightResult(differences=(f"it could not be tested: {error}",))
        if release.restore and release.restore.anyway:  # a person has accepted the differences
            found = replace(found, differences=(), allowed=(*found.allowed, *found.differences))
        result.set_result(found)
