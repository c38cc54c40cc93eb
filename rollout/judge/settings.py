"""Refuses settings under which the judge's guarantees would not hold."""

import math
from collections.abc import Mapping

from rollout.judge.own_noise import OwnNoise
from rollout.judge.types import JudgeConfig, NumberRule, SignalRule

_LARGEST = 1e100  # of a number, so that the sum of many squares does not overflow


def check_settings(config: JudgeConfig) -> None:
    """Raise ValueError that names the setting, its value and its range."""
    for name, share in (
        ("alpha", config.alpha),
        ("alpha_pass", config.alpha_pass),
        ("risk_budget", config.risk_budget),
    ):
        _require(0 < share < 1, name, share, "between 0 and 1")
    requests = config.budget_requests
    _require(requests is None or 0 < requests < math.inf, "budget_requests", requests, "above 0")
    for ratio in config.odds_ratios:
        _require(1 < ratio < math.inf, "odds_ratios", ratio, "above 1")
    _require(bool(config.odds_ratios), "odds_ratios", config.odds_ratios, "at least one number")
    _require(1 < config.fine_ratio < math.inf, "fine_ratio", config.fine_ratio, "above 1")
    _require(config.plenty > 0, "plenty", config.plenty, "above 0")
    _require(config.window_cap > 1, "window_cap", config.window_cap, "above 1")
    _require(config.amber >= 1, "amber", config.amber, "at least 1")
    for family, rule in config.rules.items():
        _check_rule(family, rule)


def check_dispersions(phi: Mapping[str, float]) -> None:
    """Raise ValueError that names the signal, its dispersion and the range."""
    for signal, dispersion in phi.items():
        _require(1 <= dispersion < math.inf, f"phi of {signal}", dispersion, "at least 1")


def check_noise(noise: Mapping[str, OwnNoise]) -> None:
    """Raise ValueError that names the signal, the wrong dispersion and the range."""
    for signal, own in noise.items():
        _require(1 <= own.clusters < math.inf, f"clusters of {signal}", own.clusters, "at least 1")
        _require(own.clusters <= own.bursts < math.inf, f"bursts of {signal}", own.bursts, f"at least {own.clusters}")
        _require(own.bursts <= own.blips < math.inf, f"blips of {signal}", own.blips, f"at least {own.bursts}")


def _check_rule(family: str, rule: SignalRule) -> None:
    _require(0 <= rule.weight < math.inf, f"weight of {family}", rule.weight, "at least 0")
    for name, tolerance in (("tolerance", rule.tolerance), ("gross_tolerance", rule.gross_tolerance)):
        _require(tolerance is None or 1 <= tolerance < math.inf, f"{name} of {family}", tolerance, "at least 1")
    _require(rule.margin is None or 0 <= rule.margin < 1, f"margin of {family}", rule.margin, "at least 0, below 1")
    _require(
        (rule.kernel == "means") == (rule.numbers is not None),
        f"numbers of {family}",
        rule.numbers,
        "set for the kernel `means`, and only for it",
    )
    if rule.numbers:
        _check_numbers(family, rule, rule.numbers)
    if rule.kernel == "bounded":
        _require(bool(rule.margin), f"margin of {family}", rule.margin, "above 0: it is the harmless share")
        _require(not rule.two_sided, f"two_sided of {family}", rule.two_sided, "false: a smaller share is never harm")


def _check_numbers(family: str, rule: SignalRule, numbers: NumberRule) -> None:
    low, high = numbers.between
    _require(-_LARGEST < low < high < _LARGEST, f"between of {family}", numbers.between, "two finite numbers that rise")
    width = high - low
    _require(
        0 <= numbers.tolerance < width, f"tolerance of {family}", numbers.tolerance, f"at least 0, under {width:g}"
    )
    budget = numbers.budget
    _require(budget is None or 0 < budget < math.inf, f"budget of {family}", budget, "above 0")
    _require(rule.budgeted == (budget is not None), f"budgeted of {family}", rule.budgeted, "true only with a budget")
    _require(not rule.two_sided, f"two_sided of {family}", rule.two_sided, "false: `worse` says which side is harm")
    decade = numbers.per_tenfold
    _require(decade is None or 0 < decade < math.inf, f"per_tenfold of {family}", decade, "above 0")


def _require(holds: bool, name: str, saw: object, needed: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {needed}, got {saw}")
