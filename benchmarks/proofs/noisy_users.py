"""Users who fail repeatedly: their effect on the judge, and how much of it the right way of counting leaves.

The judge and the counting (`rollout.signals.sticky_users`) are the real ones; the users are simulated.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from benchmarks.proofs.cells import middle, often, times
from benchmarks.proofs.sections import Section
from benchmarks.proofs.users import CANARY, STABLE, Seed, StickyScenario, Users, sticky_traffic
from rollout.control.calibration import HISTORY_S
from rollout.judge import JudgeConfig, OwnNoise, Pair, Verdict, Window
from rollout.judge.bets import bets_for
from rollout.judge.bound import ExcessBound
from rollout.judge.judge import Judge
from rollout.signals.catalogue import AFFECTED_USERS
from rollout.signals.sticky_users import AffectedUsers, UserFailure
from rollout.simulate.parallel import Workers
from rollout.spec import RolloutSpec

_HOUR_S = 3600.0
_WINDOWS_PER_VERDICT = 12  # windows between two readings of the verdict, which has the time when it was reached
TENTH = ((0.1, _HOUR_S),)
RAMP = tuple((weight, _HOUR_S / 4) for weight in (0.01, 0.05, 0.25, 0.5))
_CONFIG = RolloutSpec(sticky="header:x-user-id").judge_config()
FAIL_ONLY = replace(_CONFIG, rules={AFFECTED_USERS: _CONFIG.rules[AFFECTED_USERS]})

_FALSE_ALARMS = """
## Sticky users who fail again and again

A hash keeps each user on one side (`sticky`). All users together send 20 requests a second for an hour, at a weight of
10 % or up the ramp, and stable fails 1 % of them. The decision that follows from these tables:
[sticky users](../decisions/0007-sticky-users.md).

### A harmless canary: how often is it failed?

In {releases} releases each; the promise is at most 1 %. *Broken*: 2 % of the users fail in half of their requests, the
others never. *Unequal*: every user has their own error ratio (Beta-distributed, squared coefficient of variation 4.7).
The side that has more of the users who fail looks worse as long as the release lasts. Starting to count again in every
window does not help: they fail again in every window. Counting each version separately is worst, because a step moves
users who have already failed on stable: they fail "for the first time" on the canary."""

_POWER = """
### A canary that fails k times as often: how long until it is failed?

Median and 90th percentile of {releases} releases at 10 %, in seconds; all users are alike. Counting each user once
costs little if there are many users. It costs much if few users make all the requests and the harm is small: after half
an hour most of 500 users have failed once. But harm that is not found does not pass: PASS counts every failure."""

_BOUND = """
### The bound on a canary's excess, on which every step depends: how often is it ever too low?

In {releases} releases each; the promise is at most 1 %. The users are those above, but the canary fails each of them
twice as often, so that the true excess is 1 %. *phi of the users so far* divides all evidence by the sum of b^2 over
the sum of b, where b is the number of failures of each of stable's users since the release began. *phi of the half hour
before* computes the same number once, from stable alone before the release. Counting each user once does not help here,
because each repeated failure is harm."""

_PRICE = """
### What that costs a harmless canary: the smallest excess that an hour can exclude

Median of {releases} releases. To move to 50 %, a risk budget of 0.5 % requires a bound of 1 %. With few users, some of
them broken, an hour does not prove that, and should not: there are too few independent users."""


@dataclass(frozen=True, slots=True)
class Counting:
    """A way to turn failures into evidence for FAIL."""

    name: str
    afresh_s: float = math.inf  # after this time a user's next failure is a first one again; 0: every failure is
    per_version: bool = False  # each version counts separately, as a separate process would

    def evidence(self, traffic: Iterable[tuple[Window, list[UserFailure]]]) -> Iterator[Window]:
        """The windows that the judge gets."""
        affected, since_s = AffectedUsers(stable=STABLE, canary=CANARY), 0.0
        for errors, failures in traffic:
            if not self.afresh_s:
                yield replace(errors, signal=AFFECTED_USERS)
                continue
            if errors.end_s - since_s > self.afresh_s:
                affected, since_s = AffectedUsers(stable=STABLE, canary=CANARY), errors.end_s - errors.window_s
            yield affected.window(errors, [self._seen(failure) for failure in failures], 0)

    def _seen(self, failure: UserFailure) -> UserFailure:
        key = failure.version.encode() + (failure.user or b"") if self.per_version else failure.user
        return replace(failure, user=key)


EACH_FAILURE = Counting("each failure", afresh_s=0.0)
PER_VERSION = Counting("once a release and version", per_version=True)
ONCE = Counting("once a release")
_COUNTINGS = (
    EACH_FAILURE,
    Counting("once a window", afresh_s=5.0),
    Counting("once in 10 min", afresh_s=600.0),
    PER_VERSION,
    ONCE,
)


_POPULATIONS = (
    Users(500, broken_share=0.02),
    Users(500, spread=4.7),
    Users(2000, broken_share=0.02),
    Users(2000, spread=4.7),
    Users(20000, broken_share=0.02),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bound on the excess in one release, with three values of phi."""

    was_wrong: tuple[bool, bool, bool]  # ever below the true excess; phi: 1, of the history, of the users so far
    at_end: tuple[float, float, float]  # of the release


def failed_after_s(scenario: StickyScenario, countings: Sequence[Counting], seed: Seed) -> list[float]:
    """Seconds until the judge fails the canary of one release, under each of the `countings`; inf for never."""
    traffic = list(sticky_traffic(scenario, seed))
    return [_failed_after_s(scenario, counting.evidence(traffic)) for counting in countings]


def _failed_after_s(scenario: StickyScenario, evidence: Iterator[Window]) -> float:
    judge = Judge(FAIL_ONLY)
    for _, seconds in scenario.weights:
        judge.weight_changed()
        of_weight = islice(evidence, round(seconds / scenario.window_s))
        while windows := list(islice(of_weight, _WINDOWS_PER_VERDICT)):
            judge.observe(windows)
            judgement = judge.judgement(next_weight=None)
            if judgement.verdict is Verdict.FAIL:
                return min(signal.decided_at_s or math.inf for signal in judgement.signals.values())
    return math.inf


def bounds(scenario: StickyScenario, seed: Seed) -> Bounds:
    """Follow the bound on the excess through a release, after half an hour of stable alone."""
    traffic = sticky_traffic(replace(scenario, weights=((0.0, HISTORY_S), *scenario.weights)), seed)
    before, so_far = AffectedUsers(stable=STABLE, canary=CANARY), AffectedUsers(stable=STABLE, canary=CANARY)
    known = Pair(0, 0)
    for errors, failures in islice(traffic, round(HISTORY_S / scenario.window_s)):
        before.window(errors, failures, 0)
        known += errors.stable
    config = JudgeConfig()
    bets = bets_for(config.risk_budget, known)
    plain, with_history, with_users = (
        ExcessBound(config.alpha_pass, noise=OwnNoise.alike(phi), bets=bets) for phi in (1.0, before.phi, 1.0)
    )
    excess = scenario.users.error_ratio * (scenario.harm - 1)
    wrong = [False] * 3
    for errors, failures in traffic:
        so_far.window(errors, failures, 0)
        with_users.least_phi = so_far.phi
        for i, bound in enumerate((plain, with_history, with_users)):
            bound.observe(errors.stable, errors.canary)
            wrong[i] = wrong[i] or bound.log_e(excess) >= -math.log(config.alpha_pass)
    return Bounds((wrong[0], wrong[1], wrong[2]), (plain.upper(), with_history.upper(), with_users.upper()))


def sections(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Section]:
    """False alarms, detection, the bound and its price; one release for each seed."""
    releases = len(seeds)
    heads = ("users", "at", *(counting.name for counting in _COUNTINGS))
    yield Section(_FALSE_ALARMS.format(releases=releases), heads, _false_alarms(workers, seeds))
    heads = ("users", "k", EACH_FAILURE.name, ONCE.name)
    yield Section(_POWER.format(releases=releases), heads, _detection(workers, seeds))
    heads = ("users", "at", "phi 1", "phi of the half hour before", "phi of the users so far")
    yield Section(_BOUND.format(releases=releases), heads, _wrong_bounds(workers, seeds))
    yield Section(_PRICE.format(releases=releases), heads, _bounds_at_end(workers, seeds))


def _false_alarms(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for users, at, scenario in _scenarios():
        found_s = zip(*workers.each(partial(failed_after_s, scenario, _COUNTINGS), seeds), strict=True)
        yield users, at, *(often([math.isfinite(at_s) for at_s in found]) for found in found_s)


def _detection(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for number in (500, 2000):
        for harm in (3.0, 5.0, 10.0):
            scenario = StickyScenario(Users(number), TENTH, harm=harm)
            found_s = zip(*workers.each(partial(failed_after_s, scenario, (EACH_FAILURE, ONCE)), seeds), strict=True)
            yield f"{number:,}", f"{harm:g}", *(times(found) for found in found_s)


def _wrong_bounds(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for users, at, scenario in _scenarios(harm=2.0):
        found = list(workers.each(partial(bounds, scenario), seeds))
        yield users, at, *(often([one.was_wrong[i] for one in found]) for i in range(3))


def _bounds_at_end(workers: Workers, seeds: Sequence[Seed]) -> Iterator[Sequence[str]]:
    for users, at, scenario in _scenarios():
        found = list(workers.each(partial(bounds, scenario), seeds))
        yield users, at, *(middle([one.at_end[i] for one in found]) for i in range(3))


def _scenarios(harm: float = 1.0) -> Iterator[tuple[str, str, StickyScenario]]:
    """Every population at every weight, with the names of both."""
    for users in _POPULATIONS:
        for at, weights in (("10 %", TENTH), ("a ramp", RAMP)):
            yield _named(users), at, StickyScenario(users, weights, harm=harm)


def _named(users: Users) -> str:
    return f"{users.number:,}, {'2 % broken' if users.broken_share else 'unequal'}"
