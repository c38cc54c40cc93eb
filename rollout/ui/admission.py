"""Decides whose commands the controller accepts: by the bearer token of the request."""

import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from rollout.errors import CommandRefused
from rollout.ui.callers import Caller, Callers, roles_for
from rollout.ui.problems import problem
from rollout.ui.proof import LONGEST_NONCE

Endpoint = Callable[[Request], Awaitable[Response]]

IS_LET_IN = "is_let_in"  # set in the state of a request that was accepted


class RoleTooLow(CommandRefused):
    """The caller's role does not allow the command."""


class Admission:
    """Accepts or refuses requests by their bearer token.

    Args:
        callers: people with tokens, and the owner.
        alerts: the token of an Alertmanager, which may only post alerts; None: there is none.
    """

    def __init__(self, callers: Callers, alerts: str | None) -> None:
        self._callers, self._alerts = callers, alerts

    def for_people(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, for everybody with a token except Alertmanager."""

        def keep(request: Request) -> bool:
            request.state.caller = self._callers.of(_token(request))
            return request.state.caller is not None

        return _guarded(keep, endpoint)

    def for_alerts(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, only for Alertmanager and the owner: alerts come from machines, which have no role."""
        return _guarded(
            lambda request: self.is_alertmanager(request) or self._callers.of(_token(request)) == Caller(), endpoint
        )

    async def get_proof(self, request: Request) -> Response:
        """Prove to the holder of a token that this controller knows the token."""
        nonce = request.query_params.get("nonce", "")
        proof = self._callers.proof(request.query_params.get("token", ""), nonce) if nonce else None
        if proof is None or len(nonce) > LONGEST_NONCE:
            return problem(404, "the controller does not know this token", "it was withdrawn, or never made here")
        return PlainTextResponse(proof)

    def is_alertmanager(self, request: Request) -> bool:
        """Whether a request carries Alertmanager's own token."""
        return self._alerts is not None and hmac.compare_digest(_token(request).encode(), self._alerts.encode())

    @staticmethod
    def person(request: Request, by: str, command: str) -> str:
        """The name of the person who gives a command: the token's, or `by` for the owner.

        The request must be to an endpoint for people. Raises: RoleTooLow.
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
        """Whether the caller's role is enough for a command. The request must be to an endpoint for people."""
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
