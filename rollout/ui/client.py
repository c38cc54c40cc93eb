"""A client of the controller's API."""

import json
import ssl
import time
from http.client import HTTPException
from typing import Any

import httpx
from pydantic import BaseModel

from contract import loopback
from contract.http import DEADLINE_HEADER, READY_PATH
from contract.own_answers import NO_ANSWERS, OwnAnswers
from rollout.errors import CommandRefused, ControllerUnreachable
from rollout.observe import Observe
from rollout.spec import RolloutSpec
from rollout.ui.channel import Answer, NotProved, command
from rollout.ui.status import StatusView

_PATIENCE_S = 30.0  # after that a command is not carried out any more
_TIMEOUT_S = 40.0  # longer: the controller answers a command that it has begun a few seconds late


class CheckFinding(BaseModel):
    """Something about one signal of the user's own that a person should know."""

    signal: str
    saw: str
    do: str
    is_certain: bool  # False: it may come with the first event


class Check(BaseModel):
    """What was found where the plan's own signals are counted."""

    stable: str | None  # None: no version runs
    findings: tuple[CheckFinding, ...]


class ControllerClient:
    """Talks to one controller. Every method raises ControllerUnreachable when it does not answer."""

    def __init__(self, url: str, *, token: str, by: str, tls: ssl.SSLContext | None = None) -> None:
        self._url, self._token, self._by, self._tls = url, token, by, tls
        self._http = loopback.client(url, timeout_s=_TIMEOUT_S, trust=tls)

    def set_stable(self, tag: str, *, answers: OwnAnswers = NO_ANSWERS, observe: Observe | None = None) -> None:
        """Let `tag` take all traffic; `answers` says what is counted of its answers, `observe` of how many requests.

        Raises: CommandRefused.
        """
        said = {"answers": answers or None, "observe": observe}
        body = {key: value.model_dump(mode="json") for key, value in said.items() if value is not None}
        self._post("/api/stable", tag=tag, **body)

    def release(self, tag: str, spec: RolloutSpec, *, retry: bool = False) -> int:
        """Start a release and return its number. Raises CommandRefused."""
        return int(self._post("/api/releases", tag=tag, spec=spec.model_dump(mode="json"), retry=retry)["release"])

    def check(self, spec: RolloutSpec) -> Check:
        """Whether the plan's own signals can be counted on stable now. Raises CommandRefused."""
        return Check.model_validate(self._post("/api/checks", spec=spec.model_dump(mode="json")))

    def restore(self, tag: str, *, reason: str | None = None, quarantine: bool = False, anyway: bool = False) -> int:
        """Bring `tag` back, which was promoted before; returns the number of the release. Raises CommandRefused."""
        body = {"tag": tag, "quarantine": quarantine} | ({"reason": reason} if reason else {})
        body |= {"anyway": True} if anyway else {}  # an older controller knows no such key
        return int(self._post("/api/restore", **body)["release"])

    def command(self, name: str, *, reason: str | None = None) -> tuple[str, ...]:
        """`pause`, `resume`, `promote`, `abort` or `rollback`. Raises CommandRefused.

        Returns: what a person must see to, although the command is carried out.
        """
        answer = self._post(f"/api/commands/{name}", **({"reason": reason} if reason else {}))
        return tuple(answer.get("troubles", ()))

    def status(self) -> StatusView:
        """The present status."""
        try:
            response = self._http.get("/api/status")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return StatusView.model_validate_json(
            _checked(Answer(response.status_code, response.headers.get("content-type", ""), response.content))
        )

    def is_ready(self) -> bool:
        """Whether the control loop beats."""
        try:
            return self._http.get(READY_PATH).is_success
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        self._http.close()

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        """Command what has proved to be the controller."""
        headers = {DEADLINE_HEADER: f"{time.time() + _PATIENCE_S:.3f}"}
        sent = {"by": self._by, **body}
        try:
            answer = command(
                self._url, path, token=self._token, body=sent, headers=headers, timeout_s=_TIMEOUT_S, tls=self._tls
            )
        except NotProved as error:
            raise ControllerUnreachable(
                f"what listens at {self._url} is not the controller that knows your token, so it was not sent",
                saw=str(error),
                do="if the token was withdrawn: `kanaria token list`; if the controller is of an earlier version: "
                "`kanaria upgrade`; else see who listens there: `kanaria processes show`",
            ) from error
        except (OSError, HTTPException) as error:
            raise self._unreachable(error) from error
        carried_out: dict[str, Any] = json.loads(_checked(answer))
        return carried_out

    def _unreachable(self, error: Exception) -> ControllerUnreachable:
        match error:
            case httpx.TimeoutException() | TimeoutError():
                saw = f"no answer within {_TIMEOUT_S:.0f} s"
            case httpx.ConnectError() | ConnectionRefusedError() if "refused" in str(error):
                saw = f"nothing listens at {self._url}"
            case _:
                saw = str(error) or type(error).__name__
        return ControllerUnreachable(
            f"the controller at {self._url} does not answer", saw=saw, do="start the stack with `kanaria up TAG`"
        )


def _checked(answer: Answer) -> bytes:
    """The body of an answer. Raises CommandRefused, ControllerUnreachable for one that is a refusal."""
    if httpx.codes.is_success(answer.status):
        return answer.body
    problem = json.loads(answer.body) if "json" in answer.content_type else {}
    what = problem.get("title", f"the controller answered {answer.status}")
    saw, do = (
        problem.get("detail", answer.body[:200].decode(errors="replace")),
        problem.get("do", "see `kanaria status`"),
    )
    kind = ControllerUnreachable if answer.status >= httpx.codes.INTERNAL_SERVER_ERROR else CommandRefused
    raise kind(what, saw=saw, do=do)
