"""A client of the controller's API."""

import time
from typing import Any

import httpx
from pydantic import BaseModel

from contract import loopback
from contract.http import DEADLINE_HEADER, READY_PATH
from contract.own_answers import NO_ANSWERS, OwnAnswers
from rollout.errors import CommandRefused, ControllerUnreachable
from rollout.spec import RolloutSpec
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

    def __init__(self, url: str, *, token: str, by: str) -> None:
        self._url, self._token, self._by = url, token, by
        self._http = loopback.client(url, timeout_s=_TIMEOUT_S)

    def set_stable(self, tag: str, *, answers: OwnAnswers = NO_ANSWERS) -> None:
        """Let `tag` take all traffic; `answers` says what is counted of its answers. Raises CommandRefused."""
        self._post("/api/stable", tag=tag, **({"answers": answers.model_dump(mode="json")} if answers else {}))

    def release(self, tag: str, spec: RolloutSpec, *, retry: bool = False) -> int:
        """Start a release and return its number. Raises CommandRefused."""
        return int(self._post("/api/releases", tag=tag, spec=spec.model_dump(mode="json"), retry=retry)["release"])

    def check(self, spec: RolloutSpec) -> Check:
        """Whether the plan's own signals can be counted on stable now. Raises CommandRefused."""
        return Check.model_validate(self._post("/api/checks", spec=spec.model_dump(mode="json")))

    def restore(self, tag: str, *, reason: str | None = None, quarantine: bool = False) -> int:
        """Bring `tag` back, which was promoted before; returns the number of the release. Raises CommandRefused."""
        body = {"tag": tag, "quarantine": quarantine} | ({"reason": reason} if reason else {})
        return int(self._post("/api/restore", **body)["release"])

    def command(self, name: str, *, reason: str | None = None) -> tuple[str, ...]:
        """`pause`, `resume`, `promote`, `abort` or `rollback`. Raises CommandRefused.

        Returns: what a person must see to, although the command is carried out.
        """
        answer = self._post(f"/api/commands/{name}", **({"reason": reason} if reason else {}))
        return tuple(answer.get("troubles", ()))

    def status(self) -> StatusView:
        """The present status."""
        return StatusView.model_validate_json(self._send("GET", "/api/status").content)

    def is_ready(self) -> bool:
        """Whether the control loop beats."""
        try:
            return self._http.get(READY_PATH).is_success
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        self._http.close()

    def _seen(self, error: httpx.HTTPError) -> str:
        """What a request met instead of an answer."""
        match error:
            case httpx.TimeoutException():
                return f"no answer within {_TIMEOUT_S:.0f} s"
            case httpx.ConnectError() if "refused" in str(error):
                return f"nothing listens at {self._url}"
        return str(error) or type(error).__name__

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._token}", DEADLINE_HEADER: f"{time.time() + _PATIENCE_S:.3f}"}
        answer: dict[str, Any] = self._send("POST", path, {"by": self._by, **body}, headers).json()
        return answer

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        try:
            response = self._http.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise ControllerUnreachable(
                f"the controller at {self._url} does not answer",
                saw=self._seen(error),
                do="start the stack with `kanaria up TAG`",
            ) from error
        if response.is_success:
            return response
        problem = response.json() if "json" in response.headers.get("content-type", "") else {}
        what = problem.get("title", f"the controller answered {response.status_code}")
        saw, do = problem.get("detail", response.text[:200]), problem.get("do", "see `kanaria status`")
        kind = ControllerUnreachable if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR else CommandRefused
        raise kind(what, saw=saw, do=do)
