"""Which faults are run in which states, in which order, and why the other pairs are left out."""

from dataclasses import dataclass
from itertools import zip_longest

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.states import IDLE, LEAVING, SHADOW_BAD, STARTING, STATES, STEP_10, STEP_10_BAD, State


@dataclass(frozen=True, slots=True)
class Combination:
    """One fault in one state."""

    fault: Fault
    state: State

    @property
    def name(self) -> str:
        return f"{self.fault.name} / {self.state.name}"


def combinations() -> tuple[Combination, ...]:
    """All combinations that are run: first each fault in its most important state, then each in its second."""
    ranks = zip_longest(*([Combination(fault, state) for state in fault.states] for fault in FAULTS))
    return tuple(one for rank in ranks for one in rank if one is not None)


def left_out() -> dict[str, dict[str, str]]:
    """Fault -> state -> why this pair is not run."""
    return {
        fault.name: {state.name: why_left_out(fault, state) for state in STATES if state not in fault.states}
        for fault in FAULTS
    }


def why_left_out(fault: Fault, state: State) -> str:
    """The reason for leaving out a combination."""
    if fault.is_of_canary and state is IDLE:
        return "there is no canary"
    if fault.is_of_canary and state.is_bad:
        return "the canary is rolled back for its failures anyway"
    if fault.is_of_canary and state is LEAVING:
        return "the canary is being stopped anyway"
    if fault.is_of_canary and state is STARTING:
        return "same as a canary that is killed while it starts"
    if state in (STEP_10, STEP_10_BAD):
        return "same as at 50 %, with less traffic"
    if state is SHADOW_BAD:
        return "same as at 50 %, and users get none of its answers"
    return "the affected processes do the same as in the states that are run"
