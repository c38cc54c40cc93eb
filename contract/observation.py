"""How the gateway shows the observer the answers of versions, and what the observer knows of their differences.

The gateway opens a gRPC stream for each answer, with some of these keys in its metadata.
"""

from typing import Annotated

from pydantic import Field, TypeAdapter

from contract.http import CALLER_HEADER, OWN_REQUEST_HEADER
from contract.records import Record

ROLE = "x-kanaria-role"
STABLE, REPEAT, COPY = "stable", "repeat", "copy"  # a user's answer; stable's to the request once more; the canary's
CANARY, STABLE_COPY = "canary", "stable_copy"  # a user's answer in the steps; stable's to a copy of that request
USERS_REQUEST = {REPEAT: STABLE, COPY: STABLE, STABLE_COPY: CANARY}  # by the role of an answer to a copy, the original

SAMPLED = "x-kanaria-sampled"  # only a share of the requests has copies
READ = "x-kanaria-read"  # the tag of the version whose answer is counted by what it says; without it, it is not
RECORD = "record"  # another role: a user's request and stable's answer, while requests are recorded
ANSWERED_BY = "x-kanaria-answered-by"  # with that role: the tag of stable

# Attributes of Envoy's: headers that the gateway itself adds to requests.
CALLER, OWN_REQUEST = (f"request.headers['{name}']" for name in (CALLER_HEADER, OWN_REQUEST_HEADER))

COMPARED = "x-kanaria-compared"  # the tags of stable and canary, with a space between them

MOST_PER_S = 300  # users' requests whose answers one observer takes in

DIFFERENCES_PATH = "/differences"  # asked with `stable` and `canary`


class FieldDifference(Record):
    """One field of a route's answers in which a canary differs from stable."""

    route: str
    field: str
    different: int = Field(ge=0)  # answers
    compared: int = Field(ge=0)  # of so many
    own: Annotated[float, Field(ge=0, le=1)]  # share of requests in which stable differs from itself there


FieldDifferences = TypeAdapter(tuple[FieldDifference, ...])
