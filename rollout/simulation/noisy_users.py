"""Users who fail again and again: what they would do to the judge, and what counting them rightly leaves of it.

A chapter of `noise`. The judge and the counting (`rollout.affected`) are the real ones; the users are simulated. The
unit tests hold small versions of the same.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from rollout.affected import AFFECTED_USERS, AffectedUsers
from rollout.interfaces import UserFailure
from rollout.judge import Judge, JudgeConfig, Pair, Verdict, Window
from rollout.judge.bets import bets_for
from rollout.judge.bound import ExcessBound
from rollout.pace import HISTORY_S
from rollout.simulation.noise_tables import heading, middle, often, row, times
from rollout.simulation.parallel import Workers
from rollout.simulation.users import CANARY, STABLE, Seed, StickyScenario, Users, sticky_traffic
from rollout.spec import RolloutSpec

_HOUR_S = 3600.0
_LOOKED_AT = 12  # windows between two looks at the verdict; it remembers when it fell
TENTH = ((0.1, _HOUR_S),)
RAMP = tuple((weight, _HOUR_S / 4) for weight in (0.01, 0.05, 0.25, 0.5))
_CONFIG = RolloutSpec(sticky="header:x-user-id").judge_config()
FAIL_ONLY = replace(_CONFIG, rules={AFFECTED_USERS: _CONFIG.rules[AFFECTED_USERS]})

_TEXT = """
## Sticky users who fail again and again

A hash keeps each user on one side (`sticky`); all users together send 20 requests a second, of which stable fails 1 %,
for an hour, at 10 % or up the ramp. The decision that rests on these tables: docs/decisions/0007-sticky-users.md."""

_FALSE_ALARMS = """
### A harmless canary: how often is it failed?

Of {releases} releases each; at most 1 % is the promise. *Broken*: 2 % of the users fail in half of their requests, the
others never. *Unequal*: every user has an error ratio of his own (Beta-distributed, squared coefficient of variation
4.7). Whichever side has more of the users who fail looks worse for as long as the release lasts. Counting afresh in
every window does not help: they fail again in every window. Counting on each version for itself is worst, where a step
moves users over who have failed on stable already: they fail "for the first time" on the canary."""

_POWER = """
### A canary that fails k times as often: how long until it is failed?

Median and 90th percentile of {releases} releases at 10 %, seconds; all users alike. Counting a user once costs little
where users are many, and much where few users make all the requests and the harm is small: after half an hour most of
500 users have failed once. What is not found is not let through either: PASS counts every failure."""

_BOUND = """
### The bound on a canary's excess that every step rests on: how often is it ever too low?

Of {releases} releases each; at most 1 % is the promise. Users as above, the canary fails each twice as often, so that
the true excess is 1 %. *phi of the users so far* divides all evidence by the sum of b^2 over the sum of b, b the
failures of each of stable's users since the release began; *of the half hour before* takes the same number once, from
stable alone before the release. Counting a user once is of no use here: each repeated failure is harm."""

_PRICE = """
### What that costs a harmless canary: the smallest excess that an hour can exclude

Median of {releases} releases. To move to 50 % a risk budget of 0.5 % asks for 1 %. With few users of whom some are
broken, an hour does not prove it, and should not: there are too few independent users."""


@dataclass(frozen=True, slots=True)
class Counting:
    """A way to make evidence for FAIL out of failures."""

    name: str
    afresh_s: float = math.inf  # after so long a user's next failure is a first one again; 0: every failure is
    per_version: bool = False  # each version counts for itself, as a process of its own would

    def evidence(self, traffic: Iterable[tuple[Window, list[UserFailure]]]) -> Iterator[Window]:
        """What the judge gets to see of `traffic`."""
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
    """The bound on the excess in one release, under three ways to temper it."""

    was_wrong: tuple[bool, bool, bool]  # ever below the true excess; with phi 1, of the history, of the users so far
    at_last: tuple[float, float, float]  # at the end of the release


def failed_after_s(scenario: StickyScenario, countings: Sequence[Counting], seed: Seed) -> list[float]:
    """Seconds until the judge fails the canary of one release, under each of the `countings`; inf for never."""
    traffic = list(sticky_traffic(scenario, seed))
    return [_failed_after_s(counting.evidence(traffic)) for counting in countings]


def _failed_after_s(evidence: Iterator[Window]) -> float:
    judge = Judge(FAIL_ONLY)
    while windows := list(islice(evidence, _LOOKED_AT)):
        judge.observe(windows)
        judgement = judge.judgement(next_weight=None)
        if judgement.verdict is Verdict.FAIL:
            return min(signal.decided_at_s or math.inf for signal in judgement.signals.values())
    return math.inf


def bounds(scenario: StickyScenario, seed: Seed) -> Bounds:
    """Follow the bound on the excess through a release; half an hour of stable alone goes before it."""
    traffic = sticky_traffic(replace(scenario, weights=((0.0, HISTORY_S), *scenario.weights)), seed)
    before, so_far = AffectedUsers(stable=STABLE, canary=CANARY), AffectedUsers(stable=STABLE, canary=CANARY)
    known = Pair(0, 0)
    for errors, failures in islice(traffic, round(HISTORY_S / scenario.window_s)):
        before.window(errors, failures, 0)
        known += errors.stable
    config = JudgeConfig()
    bets = bets_for(config.risk_budget, known)
    plain, with_history, with_users = (
        ExcessBound(config.alpha_pass, phi=phi, bets=bets) for phi in (1.0, before.phi, 1.0)
    )
    excess = scenario.users.error_ratio * (scenario.harm - 1)
    wrong = [False] * 3
    for errors, failures in traffic:
        so_far.window(errors, failures, 0)
        with_users.phi = so_far.phi
        for i, bound in enumerate((plain, with_history, with_users)):
            bound.observe(errors.stable, errors.canary)
            wrong[i] = wrong[i] or bound.log_e(excess) >= -math.log(config.alpha_pass)
    return Bounds((wrong[0], wrong[1], wrong[2]), (plain.upper(), with_history.upper(), with_users.upper()))


def chapter(workers: Workers, releases: int, seeds: Sequence[Seed]) -> Iterator[str]:
    """Lines of Markdown."""
    yield _TEXT
    yield _FALSE_ALARMS.format(releases=releases)
    yield heading("users", "at", *(counting.name for counting in _COUNTINGS))
    for users in _POPULATIONS:
        for at, weights in (("10 %", TENTH), ("a ramp", RAMP)):
            scenario = StickyScenario(users, weights)
            found_s = zip(*workers.each(partial(failed_after_s, scenario, _COUNTINGS), seeds), strict=True)
            yield row(_named(users), at, *(often([math.isfinite(at_s) for at_s in found]) for found in found_s))
    yield _POWER.format(releases=releases)
    yield heading("users", "k", EACH_FAILURE.name, ONCE.name)
    for number in (500, 2000):
        for harm in (3.0, 5.0, 10.0):
            scenario = StickyScenario(Users(number), TENTH, harm=harm)
            found_s = zip(*workers.each(partial(failed_after_s, scenario, (EACH_FAILURE, ONCE)), seeds), strict=True)
            yield row(f"{number:,}", f"{harm:g}", *(times(found) for found in found_s))
    tempered = ("phi 1", "phi of the half hour before", "phi of the users so far")
    yield _BOUND.format(releases=releases)
    yield heading("users", "at", *tempered)
    harmless: list[str] = []
    for users in _POPULATIONS:
        for at, weights in (("10 %", TENTH), ("a ramp", RAMP)):
            found = list(workers.each(partial(bounds, StickyScenario(users, weights, harm=2.0)), seeds))
            yield row(_named(users), at, *(often([one.was_wrong[i] for one in found]) for i in range(3)))
            found = list(workers.each(partial(bounds, StickyScenario(users, weights)), seeds))
            harmless.append(row(_named(users), at, *(middle([one.at_last[i] for one in found]) for i in range(3))))
    yield _PRICE.format(releases=releases)
    yield heading("users", "at", *tempered)
    yield from harmless


def _named(users: Users) -> str:
    return f"{users.number:,}, {'2 % broken' if users.broken_share else 'unequal'}"
