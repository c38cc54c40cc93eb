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

if TYPE_CHECKING:  # what a plan is made of takes longer to import than a command without one takes
    from contract.own_answers import OwnAnswers
    from rollout.observe import Observe
    from rollout.spec import RolloutSpec
    from rollout.ui.views import StatusView

_PATIENCE_S = 30.0  # after that a command is not carried out any more
_PROBLEM = {"title": "", "detail": "no reason", "do": "see `kanaria status`"}
_TIMEOUT_S = 40.0  # longer: the controller answers a command that it has begun a few seconds late
_COMES_WITHIN_S = 30.0  # one that is being started; longer than the keeper waits before it tries again
_CLOSED_TIMES = 3  # by one that is killed just now; one that goes on closing connections is full
_SAY_AFTER_S = 1.0
_POLL_S = 0.05


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


@dataclass(frozen=True, slots=True)
class Absence:
    """A controller that does not listen, and is to."""

    saw: str
    do: str


class ControllerClient:
    """Talks to one controller. Every method raises ControllerUnreachable when it does not answer.

    Args:
        comes: whether one that does not listen is being started: it is waited for, for some seconds each time.
        absence: looks why it does not; None: nobody knows.
        say: prints that it is.
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
        self._away_since_s: float | None = None  # on the steady clock; None: its last answer is newer
        self._is_said = False  # that it is waited for

    def set_stable(self, tag: str, *, answers: "OwnAnswers | None" = None, observe: "Observe | None" = None) -> None:
        """Let `tag` take all traffic; `answers` says what is counted of its answers, `observe` of how many requests.

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

    def status(self, *, waits: bool = True) -> "StatusView":
        """The present status.

        Args:
            waits: for a controller that is being started; False for who asks again anyway.
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
        """Whether the control loop beats."""
        try:
            return self._polled.get(READY_PATH).is_success
        except FAILURES:
            return False

    def close(self) -> None:
        self._polled.close()

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        """Command what has proved to be the controller."""
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
                f"what listens at {self._url} is not the controller that knows your token, so it was not sent",
                saw=str(error),
                do="if the token was withdrawn: `kanaria token list`; if the controller is of an earlier version: "
                "`kanaria upgrade`; else see who listens there: `kanaria processes show`",
            ) from error
        except FAILURES as error:
            raise self._unreachable(error, is_sent=True) from error
        carried_out = _object(self._checked(answer))
        if carried_out is None:
            raise self._other(answer)
        return carried_out

    def _answered(self, ask: Callable[[], Answer], *, again: type[ConnectionError], waits: bool = True) -> Answer:
        """What `ask` gives or raises, once the controller listens.

        Args:
            again: raised where a connection was closed, and nothing was commanded.
            waits: for a controller that is being started.
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
        """For how long it has not answered, seconds; 0 where that begins."""
        now_s = time.monotonic()
        if self._away_since_s is None:
            self._away_since_s = now_s
        return now_s - self._away_since_s

    def _unreachable(self, error: Exception, *, is_sent: bool = False) -> ControllerUnreachable:
        """`is_sent`: a command may have reached it."""
        saw, do = str(error) or type(error).__name__, "see who listens there: `kanaria processes show`"
        match error:
            case TimeoutError():
                saw, do = f"no answer within {_TIMEOUT_S:.0f} s", "try again; logs/controller.log says what it does"
            case ConnectionRefusedError() if self._comes():
                saw, do = f"nothing listens at {self._url} yet", "try again; logs/controller.log says what it does"
            case ConnectionRefusedError():
                saw, do = f"nothing listens at {self._url}", "start the stack with `kanaria up TAG`"
            case ConnectionError() | IncompleteRead():
                saw = f"it closed the connection: {saw}"
                do = "try again: it ends, or all its connections are taken; `ss -tnp` shows by whom"
                if is_sent and not isinstance(error, NotSent):
                    do = "see `kanaria status`: the command may have been carried out"
        if isinstance(error, ConnectionRefusedError) and (found := self._absence()):
            saw, do = f"{saw}: {found.saw}", found.do
        return ControllerUnreachable(f"the controller at {self._url} does not answer", saw=saw, do=do)

    def _other(self, answer: Answer) -> ControllerUnreachable:
        """For an answer that no controller of this version gives."""
        body = one_line(answer.body[:100].decode(errors="replace"))
        return ControllerUnreachable(
            f"what listens at {self._url} does not answer as a controller does",
            saw=f"HTTP {answer.status}, {answer.content_type or 'no content type'}: {body or 'nothing'}",
            do="see who listens there: `kanaria processes show`; if it is a controller of another version: "
            "`kanaria upgrade`",
        )

    def _checked(self, answer: Answer) -> bytes:
        """The body of an answer. Raises CommandRefused, ControllerUnreachable for one that is a refusal."""
        if answer.is_success:
            return answer.body
        problem = _object(answer.body)
        if problem is None or "title" not in problem:
            raise self._other(answer)
        kind = ControllerUnreachable if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR else CommandRefused
        what, saw, do = (str(problem.get(key, other)) for key, other in _PROBLEM.items())
        raise kind(what, saw=saw, do=do)


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in it; None: it is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
