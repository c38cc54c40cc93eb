"""Copies a share of the requests during the rollout steps, in both directions.

The chosen version's route sets a header that names the cluster for the copy; a mirror policy reads that header after
the choice and draws the share to copy. Envoy draws version and copy from the same random number, modulo the sum of the
weights and modulo a million. These two numbers have no common divisor, so the draws are independent. The same holds for
callers who stay on one side, whose version is drawn from a hash.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from contract.http import COPY_HEADER
from rollout.compare import copied
from rollout.routers.envoy.api import Resource
from rollout.routers.envoy.observation import REPEAT, REPEATED_PERCENT
from rollout.routers.envoy.resources import SHADOW
from rollout.routers.envoy.sampling import OBSERVED
from rollout.routers.router import Split

OWN_HEADERS = COPY_HEADER  # the gateway removes every client header with this prefix
OF_STABLE, OF_CANARY, AGAIN = f"{COPY_HEADER}-of-stable", f"{COPY_HEADER}-of-canary", f"{COPY_HEADER}-again"

_HUNDREDTHS = 100  # Envoy's weights are integers relative to their sum: hundredths of a percent
_MILLION = 1_000_000  # the denominator of a copied share
_WEIGHTS = _MILLION + 1  # the sum of weights if requests are copied or observed: no common divisor with a million


def weights(split: Split, *, is_drawn: bool) -> tuple[int, int]:
    """The weights of stable and of the canary.

    Args:
        is_drawn: whether a share of the requests is drawn modulo a million, to be copied or observed.
    """
    unit, total = (_MILLION // 100, _WEIGHTS) if is_drawn else (_HUNDREDTHS, 100 * _HUNDREDTHS)
    to_canary = round(unit * split.canary_percent)
    return total - to_canary, to_canary


def marked(choices: Iterable[Resource], split: Split, *, is_observed: bool) -> list[Resource]:
    """The choices of stable and the canary, each with headers that name the cluster for a copy of its request."""
    if split.canary is None:
        return list(choices)
    place = (OBSERVED if is_observed else "") + SHADOW
    of_stable = {OF_STABLE: place + split.canary.tag}
    if is_observed:
        of_stable[AGAIN] = REPEAT + split.stable.tag
    headers = of_stable, {OF_CANARY: place + split.stable.tag}
    return [
        choice | {"request_headers_to_add": [_set(name, cluster) for name, cluster in to.items()]}
        for choice, to in zip(choices, headers, strict=True)
    ]


def copy_policies(split: Split, *, is_observed: bool) -> list[Resource]:
    """The mirror policies: which cluster gets copies of which share of the requests."""
    shares = copied(split.compare_percent / 100, split.canary_percent / 100)
    policies = [_policy(OF_STABLE, shares.of_stable), _policy(OF_CANARY, shares.of_canary)]
    if is_observed:  # a part of the requests that the canary also gets: both are drawn from the same number
        policies.append(_policy(AGAIN, shares.of_stable * REPEATED_PERCENT / 100))
    return policies


def compare_percent_of(policies: Iterable[Mapping[str, Any]]) -> float:
    """The share of requests that is compared. One direction always has the whole share: see `rollout.compare`.

    Args:
        policies: in the form that Envoy's admin shows.
    """
    numerators = [
        policy["runtime_fraction"]["default_value"].get("numerator", 0)
        for policy in policies
        if policy.get("cluster_header") in (OF_STABLE, OF_CANARY)
    ]
    return round(100 * max(numerators, default=0) / _MILLION, 2)


def _policy(header: str, share: float) -> Resource:
    return {
        "cluster_header": header,
        "runtime_fraction": {"default_value": {"numerator": round(_MILLION * share), "denominator": "MILLION"}},
        "request_headers_mutations": [
            *({"remove": name} for name in (OF_STABLE, OF_CANARY, AGAIN)),
            {"append": _set(COPY_HEADER, "compare")},
        ],
    }


def _set(name: str, value: str) -> Resource:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
