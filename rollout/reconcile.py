"""Makes the world as the state asks: who runs, who gets which share of the traffic. Idempotent.

The controller calls it on every beat, so that what failed is tried again and recovery is no special path.
It decides nothing and writes no ledger.
"""

from collections.abc import Callable

from rollout.interfaces import Backend, Fleet, ObservedSplit, Split, TrafficRouter
from rollout.state import Desired

DRAIN_S = 30.0  # longest wait for requests in flight before a version is stopped


class Reconciler:
    """Holds what is known of the outside world between two beats."""

    def __init__(self, router: TrafficRouter, fleet: Fleet, clock: Callable[[], float]) -> None:
        self._router, self._fleet, self._clock = router, fleet, clock
        self._leaving_since_s: dict[str, float] = {}
        self.observed: ObservedSplit | None = None  # read back from the gateway
        self.split_s = 0.0  # when that split came into force, Unix seconds

    def adopt(self, observed: ObservedSplit, split_s: float) -> None:
        """Go on from a split that an earlier controller had put in force."""
        self.observed, self.split_s = observed, split_s

    def start(self, wish: Desired) -> None:
        """Start every version that should run. Raises FleetError."""
        for tag in wish.running:
            self._fleet.start(tag)

    def shift(self, wish: Desired) -> ObservedSplit | None:
        """Set the split that `wish` asks for, once the versions in it have an address.

        Returns: the split, when it newly came into force; None when nothing changed.
        Raises: RouterRefused.
        """
        stable = self._address(wish.stable)
        canary = self._address(wish.canary)
        if stable is None or (wish.canary and canary is None):
            return None  # still being started; the present split stays
        want = ObservedSplit(stable.tag, wish.canary, wish.weight_percent, wish.mirror)
        if self.observed == want and self._router.observed() == want:
            return None
        self._router.apply(
            Split(
                stable=stable, canary=canary, canary_percent=wish.weight_percent, mirror=wish.mirror, sticky=wish.sticky
            )
        )
        # Read back before it is believed: a split that is not in force would charge one version for the other.
        self.observed = self._router.observed()
        if self.observed != want:
            return None
        self.split_s = self._clock()
        return want

    def stop(self, wish: Desired) -> bool:
        """Stop versions that should not run, after their last request. True when none is left."""
        unwanted = [tag for tag in self._fleet.running() if tag not in wish.running]
        is_shifted = self.observed is not None and (self.observed.stable, self.observed.canary) == (
            wish.stable,
            wish.canary,
        )
        for tag in unwanted:
            waited_s = self._clock() - self._leaving_since_s.setdefault(tag, self._clock())
            is_drained = self._router.requests_in_flight(tag) in (0, None) or waited_s > DRAIN_S
            if is_shifted and is_drained:
                self._fleet.stop(tag)
        self._leaving_since_s = {tag: since_s for tag, since_s in self._leaving_since_s.items() if tag in unwanted}
        return is_shifted and not unwanted

    def backends(self) -> tuple[Backend, ...]:
        """Every version that has an address."""
        return tuple(backend for tag in self._fleet.running() if (backend := self._address(tag)))

    def _address(self, tag: str | None) -> Backend | None:
        return self._fleet.status(tag).backend if tag else None
