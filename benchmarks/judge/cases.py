"""The traffic on which release tools are compared: healthy canaries, worse ones, and two that no tool can judge.

It does not depend on the tools.
"""

from dataclasses import dataclass
from typing import Literal

from rollout.simulate.noise import Noise
from rollout.simulate.traffic import Behaviour, Scenario

_RPS = 100.0
_LOW_RPS = 2.0
_BASE = 0.005  # error ratio of stable unless a case says otherwise
_NO_NOISE = Noise()


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of release, and whether its canary should be promoted."""

    key: str
    title: str
    scenario: Scenario
    truth: Literal["healthy", "worse", "both_bad", "no_data"]


def _healthy(key: str, title: str, *, base: float = _BASE, rps: float = _RPS, noise: Noise = _NO_NOISE) -> Case:
    return Case(key, title, Scenario(rps, Behaviour(base), Behaviour(base), noise=noise), "healthy")


def _worse(
    key: str, title: str, error_ratio: float, *, base: float = _BASE, rps: float = _RPS, after_s: float = 0.0
) -> Case:
    return Case(key, title, Scenario(rps, Behaviour(base), Behaviour(error_ratio), harm_after_s=after_s), "worse")


CASES = (
    _healthy("healthy-0.1", "0.1 % errors", base=0.001),
    _healthy("healthy-0.5", "0.5 % errors"),
    _healthy("healthy-1", "1 % errors", base=0.01),
    _healthy("healthy-5", "5 % errors", base=0.05),
    _healthy("healthy-2rps", "0.5 % errors, 2 requests/s", rps=_LOW_RPS),
    _healthy("healthy-drift", "0.2 to 1.3 % errors, drifting", noise=Noise(drift=2.5)),
    _healthy("healthy-shared", "0.5 % errors, bursts hit both versions", noise=Noise(shared_icc=0.01)),
    _healthy("healthy-own", "0.5 % errors, bursts hit one version", noise=Noise(own_icc=0.01)),
    _worse("x2-of-0.1", "0.1 % errors become 0.2 %", 0.002, base=0.001),
    _worse("x2", "0.5 % become 1 %", 0.01),
    _worse("plus-1", "0.5 % become 1.5 %", 0.015),
    _worse("x5", "0.5 % become 2.5 %", 0.025),
    _worse("x10", "0.5 % become 5 %", 0.05),
    _worse("half", "half of all requests fail", 0.5),
    _worse("x10-2rps", "0.5 % become 5 %, 2 requests/s", 0.05, rps=_LOW_RPS),
    _worse("half-2rps", "half of all requests fail, 2 requests/s", 0.5, rps=_LOW_RPS),
    _worse("late-x10", "0.5 % become 5 % after 10 minutes", 0.05, after_s=600.0),
    _worse("late-half", "half of all requests fail after 10 minutes", 0.5, after_s=600.0),
    Case("both-bad", "both versions fail 30 % of requests", Scenario(_RPS, Behaviour(0.3), Behaviour(0.3)), "both_bad"),
    Case(
        "no-data",
        "no count of the canary ever arrives",
        Scenario(_RPS, Behaviour(_BASE), Behaviour(_BASE), is_canary_counted=False),
        "no_data",
    ),
)
