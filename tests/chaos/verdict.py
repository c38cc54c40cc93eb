"""Decides whether a combination is right, from the facts, the fault and the state."""

from collections.abc import Iterable, Iterator, Sequence

from tests.chaos.faults import Fault, Hurts
from tests.chaos.seen import Held, Outcome, Seen, Split, command_of
from tests.chaos.states import (
    CANARY,
    IDLE,
    LEAVING,
    PAUSED,
    PERSON,
    PROMOTING,
    STABLE,
    WATCH_S,
    WATCHING,
    WATCHING_BAD,
    State,
)

MOST_FAILING_S = {
    Hurts.NOBODY: 0.0,
    Hurts.GATEWAY: 1.0,
    Hurts.GATEWAY_AND_KEEPER: 4.0,
    Hurts.VERSION: 3.0,
    Hurts.VERSIONS: 12.0,
}
PROMOTERS = {WATCHING: "judge", WATCHING_BAD: "judge", PROMOTING: PERSON}  # who promoted it before the fault
SEEN_WITHIN_S = 2.0  # how late the driver may notice that a watch began
AFTER_UP_S = 1.0  # requests succeed a moment after the stack is up
FOUND_WITHIN_S = 8.0  # three windows, a reading and a tick: how long a bad version may answer users
RECORDED_AFTER_S = 2.0  # a split in force for less time may be missing in the ledger


def wrongs(seen: Seen, fault: Fault, state: State) -> tuple[str, ...]:
    """What is wrong, in words; empty if all is right."""
    return tuple(
        text
        for check in (
            _problems,
            _outcome,
            _decided,
            _quarantine,
            _progress,
            _decisions,
            _failures,
            _harm,
            _leftovers,
            _commands,
        )
        for text in check(seen, fault, state)
    )


def right_ends(fault: Fault, state: State) -> frozenset[Outcome]:
    """The allowed outcomes of a release."""
    if state is IDLE:
        return frozenset({"none"})
    if state is LEAVING:
        return frozenset({"aborted"})
    if state.is_bad:
        return frozenset({"rolled_back", "aborted"} if fault.aborts else {"rolled_back"})
    if state in PROMOTERS:
        return (fault.ends or frozenset({"promoted"})) - {"running"}
    if fault.aborts:
        return frozenset({"aborted"})
    return fault.ends or frozenset({"promoted", "running"})


def failing_s(seen: Seen) -> float:
    """Seconds from the first to the last failed request. One sent before the fault counts as sent at the fault."""
    sent = [max(0.0, failure.sent_s) for failure in seen.failures]
    return max(sent) - min(sent) if sent else 0.0


def _problems(seen: Seen, _fault: Fault, _state: State) -> Iterator[str]:
    yield from seen.problems


def _outcome(seen: Seen, fault: Fault, state: State) -> Iterator[str]:
    right = right_ends(fault, state)
    if seen.outcome not in right:
        kind = "a bad version" if state.is_bad else "a healthy version"
        yield f"{kind} is {_words(seen.outcome)} ({seen.phase}), expected {' or '.join(map(_words, sorted(right)))}"
    if seen.outcome == "promoted" and seen.watched_s is not None and seen.watched_s < WATCH_S - SEEN_WITHIN_S:
        yield f"the watch of {WATCH_S:g} s was over after {seen.watched_s:.1f} s"


def _decided(seen: Seen, _fault: Fault, state: State) -> Iterator[str]:
    """Decisions of the judge or a person are kept; a command that failed is not carried out later."""
    if state in PROMOTERS:
        if seen.promoted_by != PROMOTERS[state]:
            yield f"promoted by {seen.promoted_by or 'nobody'}, expected {PROMOTERS[state]}, before the fault"
        return
    has_promoted = _has_succeeded(seen, "promote")
    if seen.promoted_by not in ("judge", "") and not has_promoted:
        yield f"promoted by {seen.promoted_by}, whose command had failed"
    if has_promoted and not seen.promoted_by:
        yield f"`promote` succeeded, and the release is {_words(seen.outcome)}"
    if _has_succeeded(seen, "abort") and seen.outcome != "aborted":
        yield f"`abort` succeeded, and the release is {_words(seen.outcome)}"
    is_early = any(one.stable == CANARY and 0 < one.since_s < seen.undone_s for one in seen.held)
    if state is PAUSED and is_early and not has_promoted:
        yield "promoted while it was paused"


def _quarantine(seen: Seen, _fault: Fault, _state: State) -> Iterator[str]:
    if seen.outcome == "rolled_back":
        if not seen.quarantined.get(CANARY):
            yield "rolled back without quarantine"
    elif CANARY in seen.quarantined:
        yield f"in quarantine although not rolled back: {seen.quarantined[CANARY]}"
    if STABLE in seen.quarantined:
        yield f"the stable version is in quarantine: {seen.quarantined[STABLE]}"


def _progress(seen: Seen, _fault: Fault, state: State) -> Iterator[str]:
    """A release is stuck if it neither ends nor is measured."""
    if seen.outcome == "running" and not seen.ticks_after:
        yield "the release is stuck: nothing was judged after the fault was undone"
    if state is LEAVING and seen.phase != "ended":
        yield f"the aborted release did not end: {seen.phase}"


def _decisions(seen: Seen, fault: Fault, _state: State) -> Iterator[str]:
    """Every split was decided before and is in the ledger, in the same order, and the last one is in force."""
    known = [one for one in seen.held if not (fault.forgets and 0 < one.since_s < seen.undone_s)]
    for split in _not_in_order(_splits(known), seen.asked):
        yield f"in force without a decision in the ledger: {split}"
    long = [one for one in known if one.for_s >= RECORDED_AFTER_S]
    for split in _not_in_order(_splits(long), seen.applied):
        yield f"in force for {_longest(long, split):.1f} s and not recorded: {split}"
    if seen.held and seen.asked and (last := _splits(seen.held)[-1]) != seen.asked[-1]:
        yield f"the ledger asks for {seen.asked[-1]}; in force at the end: {last}"


def _failures(seen: Seen, fault: Fault, _state: State) -> Iterator[str]:
    """Requests fail only while a process that serves is dead or hangs, and not for long."""
    if not seen.failures:
        return
    allowed_s = MOST_FAILING_S.get(fault.hurts, seen.undone_s + AFTER_UP_S)
    count = f"{len(seen.failures)} of {seen.requests} requests failed"
    early_s = min(failure.ended_s for failure in seen.failures)
    if not allowed_s:
        yield f"{count}, although no serving process was dead: {_by_kind(seen)}"
    elif early_s < 0:
        yield f"{count}, the first {-early_s:.1f} s before the fault: {_by_kind(seen)}"
    elif failing_s(seen) > allowed_s:
        yield f"{count}, over {failing_s(seen):.1f} s; allowed is at most {allowed_s:.1f} s: {_by_kind(seen)}"


def _harm(seen: Seen, fault: Fault, state: State) -> Iterator[str]:
    """A bad version may answer users only for a limited time."""
    if not state.is_bad:
        return
    blind_s = seen.undone_s if fault.hurts is Hurts.EVERYBODY else fault.blinds_s
    if seen.bad_until_s > blind_s + FOUND_WITHIN_S:
        yield (
            f"the bad version answered users for {seen.bad_until_s:.1f} s ({seen.bad_answers} failures); "
            f"allowed is at most {blind_s + FOUND_WITHIN_S:.0f} s"
        )


def _leftovers(seen: Seen, _fault: Fault, _state: State) -> Iterator[str]:
    if seen.left:
        yield f"left behind after `down`: {', '.join(seen.left)}"


def _commands(seen: Seen, fault: Fault, _state: State) -> Iterator[str]:
    for label, code in seen.commands.items():
        if code and command_of(label) not in fault.may_fail:
            yield f"`{label}` exited with {code}" if code != 124 else f"`{label}` timed out"


def _has_succeeded(seen: Seen, command: str) -> bool:
    return any(command_of(label) == command and code == 0 for label, code in seen.commands.items())


def _not_in_order(some: Sequence[Split], whole: Sequence[Split]) -> Iterator[Split]:
    """The splits of `some` that `whole` does not have after the split before."""
    at = 0
    for split in some:
        found = next((i for i in range(at, len(whole)) if whole[i] == split), None)
        if found is None:
            yield split
        else:
            at = found


def _splits(held: Iterable[Held]) -> list[Split]:
    return [Split(**one.model_dump(include=set(Split.model_fields))) for one in held]


def _longest(held: Iterable[Held], split: Split) -> float:
    return max(one.for_s for one in held if _splits([one]) == [split])


def _by_kind(seen: Seen) -> str:
    """The number of failures of each kind."""
    kinds: dict[str, int] = {}
    for failure in seen.failures:
        kind = f"status {failure.status}" if failure.status else failure.error
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))


def _words(outcome: str) -> str:
    return {"none": "no release", "running": "under way", "rolled_back": "rolled back"}.get(outcome, outcome)


def did(seen: Seen, state: State) -> str:
    """What the release did, in words."""
    match seen.outcome:
        case "none":
            return "nothing"
        case "running":
            return f"continues, {seen.phase}"
        case "rolled_back":
            return f"rolled back: {seen.signal}"
        case "promoted" if state in (WATCHING, WATCHING_BAD) and seen.phase != "ended":
            return "stays promoted, the watch continues"
    return seen.outcome
