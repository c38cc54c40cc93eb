"""Puts in force what the state asks for: which versions run, and which share of the traffic each gets. Idempotent.

It runs on every beat, so that failures are retried and recovery needs no special path.
It decides nothing and does not write to the ledger.
"""

from dataclasses import replace

from contract.errors import KanariaError
from rollout.control.clock import Clock, Instant
from rollout.fleet import Backend, Fleet, Health, Version
from rollout.ledger.state import Desired
from rollout.routers.router import ObservedSplit, Split, TrafficRouter

DRAIN_S = 30.0  # longest wait for requests in flight before a version is stopped


class Reconciler:
    """Holds the known state of the outside world between two beats."""

    def __init__(self, router: TrafficRouter, fleet: Fleet, clock: Clock) -> None:
        self._router, self._fleet, self._clock = router, fleet, clock
        self._leaving_since_s: dict[str, float] = {}  # on the steady clock
        self._known: dict[str, Version] = {}  # each version with its last known addresses
        self._applied: Split | None = None
        self.observed: ObservedSplit | None = None  # read back from the gateway
        self.split = Instant(0.0, clock().steady_s)  # when that split came into force

    def adopt(self, observed: ObservedSplit, at_s: float) -> None:
        """Continue with a split that an earlier controller put in force; `at_s` in Unix seconds."""
        self.observed, self.split = observed, Instant(at_s, self._clock().steady_s)

    def wall_clock_jumped(self, by_s: float) -> None:
        """Shift the time of the split by `by_s` seconds, after the wall clock was set."""
        self.split = replace(self.split, wall_s=self.split.wall_s + by_s)

    def start(self, wish: Desired) -> None:
        """Start every version that should run. Raises KanariaError."""
        for tag in wish.running:
            self._fleet.start(tag)

    def shift(self, wish: Desired) -> ObservedSplit | None:
        """Set the split that `wish` asks for, once the versions in it have an address.

        Returns: the split, if it newly came into force; None: nothing changed.
        Raises: RouterRefused.
        """
        stable, canary, fallback = (self._version(tag) for tag in (wish.stable, wish.canary, wish.fallback))
        if stable is None or (wish.canary and canary is None):
            return None  # still being started; the present split stays
        want = ObservedSplit(
            stable.tag,
            wish.canary,
            wish.weight_percent,
            wish.mirror,
            fallback=fallback.tag if fallback else None,
            compare_percent=wish.compare_percent,
        )
        split = Split(
            stable=stable,
            canary=canary,
            canary_percent=wish.weight_percent,
            mirror=wish.mirror,
            sticky=wish.sticky,
            segments=wish.segments,
            fallback=fallback,
            answers=wish.answers,
            compare_percent=wish.compare_percent,
        )
        is_in_force = self.observed == want and self._router.observed() == want
        if is_in_force and split == self._applied:
            return None
        self._router.apply(split)
        self._applied = split
        if is_in_force:
            return None  # the shares are the same; at most addresses changed
        # Read it back before it counts: under a split that is not in force, requests would count for the wrong version.
        self.observed = self._router.observed()
        if self.observed != want:
            return None
        self.split = self._clock()
        return want

    def give_all_to(self, tag: str) -> ObservedSplit | None:
        """Send all requests to the last known addresses of `tag`, without asking the fleet.

        Returns: the split, if it is in force. Raises: RouterRefused.
        """
        version = self._known.get(tag)
        if version is None:
            return None
        self._router.apply(Split(version))
        self.observed = self._router.observed()
        self.split = self._clock()
        return self.observed if self.observed == ObservedSplit(tag, None, 0, mirror=False) else None

    def give_all_to_stable(self) -> ObservedSplit | None:
        """Take a canary's share back by the gateway's own state, for a controller that could not read its ledger.

        Returns: the split, if it newly came into force; None where no canary has a share, or stable has no address.
        Raises: RouterRefused.
        """
        seen = self._router.observed()
        if seen is None or seen.canary_percent == 0 or self._version(seen.stable) is None:
            return None
        return self.give_all_to(seen.stable)

    def silence(self, tag: str, *, other: str) -> bool:
        """Suspend `tag`, to which the gateway keeps sending requests, if `other` is ready to answer instead.

        Returns: whether it was suspended. Nothing is done if the gateway sends requests to no version, or if `tag` is
        out of the split: then it only answers its last requests.
        """
        seen = self._router.observed()
        if seen is None or tag not in (seen.stable, seen.canary):
            return False
        if other not in (seen.stable, seen.canary, seen.fallback):
            return False
        return self._fleet.status(other).health is Health.READY and self._fleet.suspend(tag)

    def is_in_force(self, wish: Desired) -> bool:
        """Whether the gateway has the split that `wish` asks for; only then do requests count for its weight."""
        seen = self.observed
        return seen is not None and (
            (seen.stable, seen.canary, seen.canary_percent, seen.mirror, seen.compare_percent)
            == (wish.stable, wish.canary, wish.weight_percent, wish.mirror, wish.compare_percent)
        )

    def stop(self, wish: Desired) -> bool:
        """Stop versions that should not run, after their last request. Returns whether none is left."""
        unwanted = [tag for tag in self._fleet.running() if tag not in wish.running]
        seen = self.observed
        is_shifted = seen is not None and (seen.stable, seen.canary) == (wish.stable, wish.canary)
        may_be_asked = {seen.stable, seen.canary, seen.fallback} if seen else set()
        for tag in unwanted:
            now_s = self._clock().steady_s
            waited_s = now_s - self._leaving_since_s.setdefault(tag, now_s)
            is_drained = self._router.requests_in_flight(tag) in (0, None) or waited_s > DRAIN_S
            if is_shifted and is_drained and tag not in may_be_asked:
                self._fleet.stop(tag)
        self._leaving_since_s = {tag: since_s for tag, since_s in self._leaving_since_s.items() if tag in unwanted}
        return is_shifted and not unwanted

    def backends(self) -> tuple[Backend, ...]:
        """The addresses of all running versions."""
        return tuple(backend for tag in self._fleet.running() for backend in self._fleet.status(tag).backends)

    def _version(self, tag: str | None) -> Version | None:
        """The version with its addresses; None while it has none."""
        if tag is None:
            return None
        try:
            backends, service = self._fleet.status(tag).backends, self._fleet.service(tag)
        except (KanariaError, OSError):  # the fleet does not answer; its versions keep their addresses
            return self._known.get(tag)
        if not backends:
            return None
        version = self._known[tag] = Version(backends, service)
        return version
