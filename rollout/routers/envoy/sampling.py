"""Draws the requests whose answers the observer is shown. The share, a runtime value of Envoy's, may change any time.

A route that is drawn stands before the one that is not, with clusters of its own; the rest of the traffic pays nothing.
Envoy draws route, version and copy from one random number: the route and a copied share by its rest by a million, the
version by its rest by a sum of weights that has no common divisor with a million (`compared`). So the version does not
depend on the draw, and of the requests that are drawn those are copied that both shares hold.
"""

import json

from contract import loopback
from rollout.routers.envoy.api import Resource

OBSERVED = "observed/"  # before the name of a cluster: the same, with its answers shown
SHOWN = "kanaria.shown"  # the share of the requests that are drawn; unless it is set, all

_MILLION = 1_000_000
_FINEST = 100  # of a million: within as many, a copied share in percent is what it is


def drawn() -> Resource:
    """The part of a route's match that holds for the share of the requests that `SHOWN` says."""
    return {"runtime_fraction": {"default_value": {"numerator": 100}, "runtime_key": SHOWN}}


def show(admin: loopback.Client, share: float) -> None:
    """Let the observer be shown the answers to that share of the requests, 0 to 1. Raises httpx.HTTPError.

    Args:
        admin: a client of the gateway's admin.
    """
    percent = {"numerator": _FINEST * round(_MILLION * share / _FINEST), "denominator": "MILLION"}
    value = json.dumps(percent, separators=(",", ":"))  # Envoy takes a space in a query, a `+`, as it is
    admin.post("/runtime_modify", params={SHOWN: value}).raise_for_status()
