"""Reads from an observer's page in which fields a canary's answers differ from stable's, in words for a person."""

import httpx
from pydantic import ValidationError

from contract import loopback
from contract.observation import DIFFERENCES_PATH, FieldDifference, FieldDifferences
from rollout.format import count, share

_SAID = 3  # fields


class ObserverPage:
    """The Observer at `address` (`host:port`)."""

    def __init__(self, address: str, *, timeout_s: float = 1.0) -> None:
        self._http = loopback.client(f"http://{address}", timeout_s=timeout_s, keeps_connections=False)

    def differences(self, *, stable: str, canary: str) -> str:
        """See `Observer`."""
        try:
            answer = self._http.get(DIFFERENCES_PATH, params={"stable": stable, "canary": canary}).raise_for_status()
            found = FieldDifferences.validate_json(answer.content)
        except (httpx.HTTPError, ValidationError):
            return ""
        return f"its answers differ from {stable}'s in {', '.join(map(said, found[:_SAID]))}" if found else ""


def said(found: FieldDifference) -> str:
    """A field that differs, in words."""
    own = f"; stable's own differ in {share(found.own)}" if found.own else ""
    return f"`{found.field}` of {found.route} ({count(found.different)} of {count(found.compared)}{own})"
