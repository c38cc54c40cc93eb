"""A data plane in memory, for tests of the controller. It moves no traffic.

It passes the same contract tests as Envoy, and can misbehave as a real data plane can: refuse, converge slowly, be
unreachable.
"""

from dataclasses import dataclass, field

from rollout.errors import RouterRefused
from rollout.routers.router import ObservedSplit, Refused, Split
from rollout.routers.validation import check_split


@dataclass(slots=True)
class MemoryRouter:
    """Keeps the split that it was given. A test may set the fields at any time."""

    refusals: list[str] = field(default_factory=list)  # reasons with which the next calls of `apply` are refused
    reads_until_converged: int = 0  # calls of `observed` that still return None after each change
    reachable: bool = True
    asks_for_keys: bool = True
    in_flight: dict[str, int] = field(default_factory=dict)  # unanswered requests by tag
    turned_away: Refused = field(default_factory=Refused)  # since it was started
    history: list[Split] = field(default_factory=list)  # every change, oldest first; repetitions are not changes
    _reads_left: int = 0

    def apply(self, split: Split) -> None:
        check_split(split)
        if not self.reachable:
            raise RouterRefused("the data plane is out of reach", saw="reachable is False", do="set it to True")
        if self.refusals:
            raise RouterRefused("the data plane refused the split", saw=self.refusals.pop(0), do="apply it again")
        if self.history[-1:] != [split]:
            self.history.append(split)
            self._reads_left = self.reads_until_converged

    def observed(self) -> ObservedSplit | None:
        if not self.reachable or not self.history:
            return None
        if self._reads_left:
            self._reads_left -= 1
            return None
        split = self.history[-1]
        return ObservedSplit(
            stable=split.stable.tag,
            canary=split.canary.tag if split.canary else None,
            canary_percent=split.canary_percent,
            mirror=split.mirror,
            fallback=split.fallback.tag if split.fallback else None,
            compare_percent=split.compare_percent,
        )

    def refused(self) -> Refused | None:
        return self.turned_away if self.reachable else None

    def requests_in_flight(self, tag: str) -> int | None:
        known = {
            version.tag
            for split in self.history[-2:]
            for version in (split.stable, split.canary, split.fallback)
            if version
        }
        return self.in_flight.get(tag, 0) if self.reachable and tag in known else None
