"""The state of the control loop for the API and the metrics."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rollout.fleet import Backend, Health
from rollout.judge import Judgement
from rollout.ledger.chain import START, Head
from rollout.ledger.events import Event
from rollout.ledger.state import Deployment
from rollout.routers.router import GatewayHealth, ObservedSplit


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The loop's state at one beat; replaced as a whole, so that other threads may read it."""

    deployment: Deployment
    observed: ObservedSplit | None
    judgement: Judgement | None
    health: Mapping[str, Health]  # of every running version
    last_action: str
    beat_s: float  # Unix seconds
    steady_s: float = 0.0  # the same moment on a clock that is never set
    backends: Mapping[str, tuple[Backend, ...]] = field(default_factory=dict)  # of every running version
    restarts: Mapping[str, int] = field(default_factory=dict)  # of workers, for every running version
    preparing: Mapping[str, str] = field(default_factory=dict)  # what is being done to create a version's environment
    head: Head = START  # of the ledger
    unwritten: tuple[Event, ...] = ()  # events that are not in the ledger yet
    free_bytes: float = math.inf  # on the file system of the state folder
    troubles: tuple[str, ...] = ()  # problems that a person must fix, in words
    loaded_s: float = math.inf  # for how long no version with traffic has been loading in this release, seconds
    gateway: GatewayHealth = GatewayHealth.UNKNOWN
    refused: str = ""  # refused requests, in words, while no version gets any; empty: none, or a version gets requests
    unjudged_s: float = 0.0  # for how long the release has not been judged although it should be, seconds
