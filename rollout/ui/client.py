"""A client of the controller's API."""

import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import IncompleteRead
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from contract.http import DEADLINE_HEADER, READY_PATH
from contract.plain_text import one_line
from contract.polled import FAILURES, Answer, Polled
from rollout.errors import CommandRefused, ControllerUnreachable
from rollout.ui.channel import NotProved, NotSent, command

if TYPE_CHECKING:  # importing the parts of a plan takes longer than a whole command without a plan
    from contract.own_answers import OwnAnswers
    from rollout.observe import Observe
    from rollout.spec import RolloutSpec
    from rollout.ui.views import StatusView

_PATIENCE_S = 30.0  # after this time a command is no longer carried out
_PROBLEM = {"title": "", "detail": "no reason", "do": "see `kanaria status`"}
_TIMEOUT_S = 40.0  # longer than `_PATIENCE_S`: the controller may answer a few seconds late once it has begun
_COMES_WITHIN_S = 30.0  # longest wait for a controller that is being started; longer than the keeper waits to retry
_CLOSED_TIMES = 3  # a controller that is just being killed closes a few connections; one that closes more is full
_SAY_AFTER_S = 1.0
_POLL_S = 0.05


class CheckFinding(BaseModel):
    """Something that a person should know about one of the user's own signals."""

    signal: str
    saw: str
    do: str
    is_certain: bool  # False: the series may appear with its first event


class Check(BaseModel):
    """The result of checking a plan's own signals on stable."""

    stable: str | None  # None: no version runs
    findings: tuple[CheckFinding, ...]


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a controller does not listen although it should."""

    saw: str
    do: str


class ControllerClient:
    """Talks to one controller. Every method raises ControllerUnreachable if it does not answer.

    Args:
        url: the controller's address.
        token: sent with commands.
        by: the name of the person who gives them.
        tls: how to verify its certificate.
        comes: whether a controller that does not listen is being started; then the client waits for it.
        absence: finds out why it does not listen; None: not known.
        say: prints that the client waits.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str,
        by: str,
        tls: ssl.SSLContext | None = None,
        comes: Callable[[], bool] = lambda: False,
        absence: Callable[[], Absence | None] = lambda: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._url, self._token, self._by, self._tls = url, token, by, tls
        self._polled = Polled(url, timeout_s=_TIMEOUT_S, trust=tls)
        self._comes, self._absence, self._say = comes, absence, say
        self._away_since_s: float | None = None  # since when it has not answered, on the steady clock; None: it has
        self._is_said = False  # whether the user was told that the client waits

    def set_stable(self, tag: str, *, answers: "OwnAnswers | None" = None, observe: "Observe | None" = None) -> None:
        """Give `tag` all traffic; `answers` says what is read from its answers, `observe` for how many requests.

        Raises: CommandRefused.
        """
        said = {"answers": answers or None, "observe": observe}
        body = {key: value.model_dump(mode="json") for key, value in said.items() if value is not None}
        self._post("/api/stable", tag=tag, **body)

    def release(self, tag: str, spec: "RolloutSpec", *, retry: bool = False) -> int:
        """Start a release and return its number. Raises CommandRefused."""
        return int(self._post("/api/releases", tag=tag, spec=spec.model_dump(mode="json"), retry=retry)["release"])

    def check(self, spec: "RolloutSpec") -> Check:
        """Whether the plan's own signals can be counted on stable now. Raises CommandRefused."""
        return Check.model_validate(self._post("/api/checks", spec=spec.model_dump(mode="json")))

    def restore(self, tag: str, *, reason: str | None = None, quarantine: bool = False, anyway: bool = False) -> int:
        """Restore `tag`, which was promoted before; returns the number of the release. Raises CommandRefused."""
        body = {"tag": tag, "quarantine": quarantine} | ({"reason": reason} if reason else {})
        body |= {"anyway": True} if anyway else {}  # an older controller refuses an unknown key
        return int(self._post("/api/restore", **body)["release"])

    def command(self, name: str, *, reason: str | None = None) -> tuple[str, ...]:
        """Give the command `pause`, `resume`, `promote`, `abort` or `rollback`. Raises CommandRefused.

        Returns: problems that a person must fix although the command is carried out.
        """
        answer = self._post(f"/api/commands/{name}", **({"reason": reason} if reason else {}))
        return tuple(answer.get("troubles", ()))

    def status(self, *, waits: bool = True) -> "StatusView":
        """The present status.

        Args:
            waits: wait for a controller that is being started; False for callers that poll anyway.
        """
        from rollout.ui.views import StatusView  # noqa: PLC0415 - slow, and commands that steer a release show none

        try:
            answer = self._answered(lambda: self._polled.get("/api/status"), again=ConnectionError, waits=waits)
        except FAILURES as error:
            raise self._unreachable(error) from error
        try:
            return StatusView.model_validate_json(self._checked(answer))
        except ValidationError as error:
            raise self._other(answer) from error

    def is_ready(self) -> bool:
        """Whether the control loop runs."""
        try:
            return self._polled.get(READY_PATH).is_success
        except FAILURES:
            return False

    def close(self) -> None:
        self._polled.close()

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        """Send a command, once the listener has proved that it is the controller."""
        sent = {"by": self._by, **body}

        def send() -> Answer:
            headers = {DEADLINE_HEADER: f"{time.time() + _PATIENCE_S:.3f}"}
            return command(
                self._url, path, token=self._token, body=sent, headers=headers, timeout_s=_TIMEOUT_S, tls=self._tls
            )

        try:
            answer = self._answered(send, again=NotSent)
        except NotProved as error:
            raise ControllerUnreachable(
                f"the process that listens at {self._url} does not know your token, so the token was not sent",
                saw=str(error),
                do="if the token was withdrawn: `kanaria token list`; if the controller is of an earlier version: "
                "`kanaria upgrade`; otherwise see which process listens there: `kanaria processes show`",
            ) from error
        except FAILURES as error:
            raise self._unreachable(error, is_sent=True) from error
        carried_out = _object(self._checked(answer))
        if carried_out is None:
            raise self._other(answer)
        return carried_out

    def _answered(self, ask: Callable[[], Answer], *, again: type[ConnectionError], waits: bool = True) -> Answer:
        """The result of `ask`, or what it raises, once the controller listens.

        Args:
            ask: sends one request.
            again: raised by `ask` if the connection was closed before a command was sent; then `ask` is repeated.
            waits: wait for a controller that is being started.
        """
        closed = 0
        while True:
            try:
                answer = ask()
            except ConnectionRefusedError:
                if not waits or self._away_s() >= _COMES_WITHIN_S or not self._comes():
                    raise
            except again:
                closed += 1
                if closed > _CLOSED_TIMES or not self._comes():
                    raise
            else:
                self._away_since_s, self._is_said = None, False
                return answer
            if waits and self._away_s() >= _SAY_AFTER_S and not self._is_said:
                self._is_said = True
                self._say("waits for the controller, which is being started")
            time.sleep(_POLL_S)

    def _away_s(self) -> float:
        """For how long the controller has not answered, seconds; 0 at the first call without an answer."""
        now_s = time.monotonic()
        if self._away_since_s is None:
            self._away_since_s = now_s
        return now_s - self._away_since_s

    def _unreachable(self, error: Exception, *, is_sent: bool = False) -> ControllerUnreachable:
        """The error for a controller that does not answer; `is_sent`: a command may have reached it."""
        saw, do = str(error) or type(error).__name__, "see which process listens there: `kanaria processes show`"
        match error:
            case TimeoutError():
                saw, do = f"no answer within {_TIMEOUT_S:.0f} s", "try again; logs/controller.log says what it does"
            case ConnectionRefusedError() if self._comes():
                saw, do = f"nothing listens at {self._url} yet", "try again; logs/controller.log says what it does"
            case ConnectionRefusedError():
                saw, do = f"nothing listens at {self._url}", "start the stack with `kanaria up TAG`"
            case ConnectionError() | IncompleteRead():
                saw = f"it closed the connection: {saw}"
                do = "try again: it is stopping, or all its connections are in use; `ss -tnp` shows by whom"
                if is_sent and not isinstance(error, NotSent):
                    do = "see `kanaria status`: the command may have been carried out"
        if isinstance(error, ConnectionRefusedError) and (found := self._absence()):
            saw, do = f"{saw}: {found.saw}", found.do
        return ControllerUnreachable(f"the controller at {self._url} does not answer", saw=saw, do=do)

    def _other(self, answer: Answer) -> ControllerUnreachable:
        """The error for an answer that no controller of this version gives."""
        body = one_line(answer.body[:100].decode(errors="replace"))
        return ControllerUnreachable(
            f"the process that listens at {self._url} does not answer like a controller",
            saw=f"HTTP {answer.status}, {answer.content_type or 'no content type'}: {body or 'nothing'}",
            do="see which process listens there: `kanaria processes show`; if it is a controller of another version: "
            "`kanaria upgrade`",
        )

    def _checked(self, answer: Answer) -> bytes:
        """The body of a successful answer. Raises CommandRefused or ControllerUnreachable for a refusal."""
        if answer.is_success:
            return answer.body
        problem = _object(answer.body)
        if problem is None or "title" not in problem:
            raise self._other(answer)
        kind = ControllerUnreachable if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR else CommandRefused
        what, saw, do = (str(problem.get(key, other)) for key, other in _PROBLEM.items())
        raise kind(what, saw=saw, do=do)


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in `body`; None: it has none."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
