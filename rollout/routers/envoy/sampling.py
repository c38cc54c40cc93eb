"""Draws the requests whose answers the observer gets. The share is an Envoy runtime value and may change at any time.

The drawn route stands before the other one and has its own clusters; the rest of the traffic pays nothing. Envoy draws
route, version and copy from one random number: the route and the copied share modulo a million, the version modulo a
sum of weights that has no common divisor with a million (`compared`). So the version does not depend on the draw, and a
request is copied if it is within both shares.
"""

import json

from contract import loopback
from rollout.routers.envoy.api import Resource

OBSERVED = "observed/"  # before the name of a cluster: the same, with its answers passed to the observer
SHOWN = "kanaria.shown"  # the share of requests that are drawn; all if it is not set

_MILLION = 1_000_000
_FINEST = 100  # steps of the share, of a million: so that a copied share in percent stays exact


def drawn() -> Resource:
    """The part of a route's match for the share of requests in `SHOWN`."""
    return {"runtime_fraction": {"default_value": {"numerator": 100}, "runtime_key": SHOWN}}


def show(admin: loopback.Client, share: float) -> None:
    """Pass the answers to `share` of the requests, 0 to 1, to the observer. Raises httpx.HTTPError.

    Args:
        admin: a client of the gateway's admin.
    """
    percent = {"numerator": _FINEST * round(_MILLION * share / _FINEST), "denominator": "MILLION"}
    value = json.dumps(percent, separators=(",", ":"))  # no spaces: Envoy does not decode a `+` in a query
    admin.post("/runtime_modify", params={SHOWN: value}).raise_for_status()
