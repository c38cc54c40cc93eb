"""Whose commands the controller takes: what of a request says who sent it, and what is answered to all others."""

import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from rollout.errors import CommandRefused
from rollout.ui.callers import Caller, Callers, roles_for
from rollout.ui.problems import problem
from rollout.ui.proof import LONGEST_NONCE

Endpoint = Callable[[Request], Awaitable[Response]]

IS_LET_IN = "is_let_in"  # in the state of a request that was let in


class RoleTooLow(CommandRefused):
    """Whoever asks may not."""


class Admission:
    """Lets callers in by their bearer token.

    Args:
        callers: people, and the owner.
        alerts: the token of an Alertmanager, which may only post alerts; None: there is none.
    """

    def __init__(self, callers: Callers, alerts: str | None) -> None:
        self._callers, self._alerts = callers, alerts

    def for_people(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, for everybody with a token but Alertmanager."""

        def keep(request: Request) -> bool:
            request.state.caller = self._callers.of(_token(request))
            return request.state.caller is not None

        return _guarded(keep, endpoint)

    def for_alerts(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, for Alertmanager and the owner: alerts come from machines, which have no role."""
        return _guarded(
            lambda request: self.is_alertmanager(request) or self._callers.of(_token(request)) == Caller(), endpoint
        )

    async def get_proof(self, request: Request) -> Response:
        """Show to the holder of a token that this is the controller that knows it."""
        nonce = request.query_params.get("nonce", "")
        proof = self._callers.proof(request.query_params.get("token", ""), nonce) if nonce else None
        if proof is None or len(nonce) > LONGEST_NONCE:
            return problem(404, "the controller knows no such token", "it was withdrawn, or never made here")
        return PlainTextResponse(proof)

    def is_alertmanager(self, request: Request) -> bool:
        """Whether a request brings Alertmanager's own token."""
        return self._alerts is not None and hmac.compare_digest(_token(request).encode(), self._alerts.encode())

    @staticmethod
    def person(request: Request, by: str, command: str) -> str:
        """The name of whoever asks for a command: that of the token, or `by` where the owner asks.

        The request is one to an endpoint for people. Raises: RoleTooLow.
        """
        caller: Caller = request.state.caller
        if not caller.may(command):
            enough = " or ".join(f"`{role}`" for role in roles_for(command))
            raise RoleTooLow(
                f"your role is not enough for `{command}`",
                saw=f"{caller.name} has the role `{caller.role}`",
                do=f"ask {f'somebody with the role {enough}, or ' if enough else ''}the owner of the state folder",
            )
        return caller.name or by

    @staticmethod
    def may(request: Request, command: str) -> bool:
        """Whether the role of whoever asks is enough for a command. The request is one to an endpoint for people."""
        caller: Caller = request.state.caller
        return caller.may(command)


def _token(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _guarded(is_let_in: Callable[[Request], bool], endpoint: Endpoint) -> Endpoint:
    async def check(request: Request) -> Response:
        if not is_let_in(request):
            return problem(401, "this needs the controller's token", "send `Authorization: Bearer TOKEN`")
        setattr(request.state, IS_LET_IN, True)
        return await endpoint(request)

    return check
