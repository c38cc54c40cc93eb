"""How the gateway passes answers of versions to the observer, and what the observer reports about their differences.

The gateway opens a gRPC stream for each answer, with some of these keys in the stream's metadata.
"""

from typing import Annotated

from pydantic import Field, TypeAdapter

from contract.http import CALLER_HEADER, OWN_REQUEST_HEADER
from contract.records import Record

ROLE = "x-kanaria-role"
# The roles of answers. STABLE, CANARY: what a user got, from stable or, in the rollout steps, from the canary.
# REPEAT: stable's answer to the same request once more. COPY: the canary's answer to a copy of it.
# STABLE_COPY: stable's answer to a copy of a request that the canary answered.
STABLE, REPEAT, COPY = "stable", "repeat", "copy"
CANARY, STABLE_COPY = "canary", "stable_copy"
USERS_REQUEST = {REPEAT: STABLE, COPY: STABLE, STABLE_COPY: CANARY}  # role of a copy's answer -> role of the user's

SAMPLED = "x-kanaria-sampled"  # only a share of the requests has copies
READ = "x-kanaria-read"  # the tag of the version whose answers are counted by their content; absent: not counted
RECORD = "record"  # one more role: a user's request and stable's answer, while requests are recorded
ANSWERED_BY = "x-kanaria-answered-by"  # with that role: the tag of stable

# Envoy attributes: headers that the gateway itself adds to requests.
CALLER, OWN_REQUEST = (f"request.headers['{name}']" for name in (CALLER_HEADER, OWN_REQUEST_HEADER))

COMPARED = "x-kanaria-compared"  # the tags of stable and canary, separated by a space

MOST_PER_S = 300  # users' requests per second whose answers one observer accepts

DIFFERENCES_PATH = "/differences"  # takes the parameters `stable` and `canary`


class FieldDifference(Record):
    """One field of a route's answers in which a canary differs from stable."""

    route: str
    field: str
    different: int = Field(ge=0)  # answers
    compared: int = Field(ge=0)  # answers in all
    own: Annotated[float, Field(ge=0, le=1)]  # share of requests in which stable's own answers differ in this field


FieldDifferences = TypeAdapter(tuple[FieldDifference, ...])
