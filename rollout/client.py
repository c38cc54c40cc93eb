"""The controller's API from the other side, for the command line and the demo."""

from typing import Any

import httpx

from rollout.errors import CommandRefused, ControllerUnreachable
from rollout.spec import RolloutSpec
from rollout.status import StatusView


class ControllerClient:
    """Talks to one controller. Every method raises ControllerUnreachable when it does not answer."""

    def __init__(self, url: str, *, token: str, by: str) -> None:
        self._url, self._by = url, by
        self._http = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=35.0, trust_env=False
        )

    def set_stable(self, tag: str) -> None:
        """Let `tag` take all traffic. Raises CommandRefused."""
        self._post("/api/stable", tag=tag)

    def release(self, tag: str, spec: RolloutSpec, *, retry: bool = False) -> int:
        """Start a release and give its number. Raises CommandRefused."""
        return int(self._post("/api/releases", tag=tag, spec=spec.model_dump(mode="json"), retry=retry)["release"])

    def command(self, name: str, *, reason: str | None = None) -> None:
        """`pause`, `resume`, `promote`, `abort` or `rollback`. Raises CommandRefused."""
        self._post(f"/api/commands/{name}", **({"reason": reason} if reason else {}))

    def status(self) -> StatusView:
        """What is true now."""
        return StatusView.model_validate_json(self._send("GET", "/api/status").content)

    def is_ready(self) -> bool:
        """Whether the control loop beats."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        self._http.close()

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._send("POST", path, {"by": self._by, **body}).json()
        return answer

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ControllerUnreachable(
                f"the controller at {self._url} does not answer",
                saw=repr(error),
                do="start the stack with `kanaria up`",
            ) from error
        if response.is_success:
            return response
        problem = response.json() if "json" in response.headers.get("content-type", "") else {}
        what = problem.get("title", f"the controller answered {response.status_code}")
        saw, do = problem.get("detail", response.text[:200]), problem.get("do", "see `kanaria status`")
        kind = ControllerUnreachable if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR else CommandRefused
        raise kind(what, saw=saw, do=do)
