"""Simulated users who send texts and know the right language of each.

They send at the times of a scenario, independent of the answers, and count like the load test.
"""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import httpx

from contract import loopback
from contract.http import API_KEY_HEADER, REQUEST_ID_HEADER, VERSION_HEADER
from loadtest.http_contract import SHOWN_CHARACTERS, Reply
from loadtest.recorder import Outcome, Recorder
from loadtest.results import Live, Summary
from loadtest.scenario import Scenario
from loadtest.schedule import Arrival, arrivals

_PATH = "/detect"
_WORDS = 4  # in a text: so few that a version that counts single letters is sometimes wrong
_AT_ONCE = 16  # requests in flight


class Text(NamedTuple):
    """A text and the language that it is in."""

    text: str
    language: str


class Phrases:
    """Makes random texts from a file whose lines are `language<TAB>phrase`. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._words: dict[str, list[str]] = {}
        for line in path.read_text("utf-8").splitlines():
            language, _, phrase = line.partition("\t")
            self._words.setdefault(language, []).extend(phrase.split())

    def text(self, chance: random.Random) -> Text:
        """A text of some words of one language."""
        language = chance.choice(list(self._words))
        return Text(" ".join(chance.choices(self._words[language], k=_WORDS)), language)


class TextUsers:
    """Users that send requests until the `with` block ends or `stop` is called."""

    def __init__(self, scenario: Scenario, phrases: Phrases, *, host: str, api_key: str | None) -> None:
        """
        Args:
            scenario: when requests are due.
            host: base URL, such as `http://127.0.0.1:8080`.
            api_key: sent as `x-api-key`; None: no such header.
        """
        self._scenario, self._phrases, self._host = scenario, phrases, host
        self._client = loopback.client(host, timeout_s=scenario.timeout_s)
        self._headers = {API_KEY_HEADER: api_key} if api_key else {}
        self._chance = random.Random(f"{scenario.seed}/texts")  # noqa: S311 - repeatable texts, not a secret
        self._recorder = Recorder(scenario, time.time())
        self._lock = threading.Lock()  # of the recorder
        self._began_s = time.monotonic()
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="user")
        self._clock = threading.Thread(target=self._send_on_time, name="users")

    def __enter__(self) -> Self:
        self._clock.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def live(self) -> Live:
        """The current counters."""
        with self._lock:
            return self._recorder.live(self._now_s)

    def stop(self) -> Summary:
        """Send nothing new, let requests in flight finish, and return the summary. May be called after the end."""
        self._end()
        with self._lock:
            return self._recorder.summary(host=self._host, stopped_early=True, generator_cpu_s=0.0)

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _end(self) -> None:
        self._is_over.set()
        self._clock.join()
        self._pool.shutdown(wait=True)
        self._client.close()

    def _send_on_time(self) -> None:
        for arrival in arrivals(self._scenario):
            if self._is_over.wait(max(0.0, arrival.due_s - self._now_s)):
                return
            self._pool.submit(self._ask, arrival, self._phrases.text(self._chance))

    def _ask(self, arrival: Arrival, text: Text) -> None:
        sent_s = self._now_s
        with self._lock:
            self._recorder.sent(arrival.due_s, sent_s)
        try:
            answer = self._client.post(_PATH, json={"text": text.text}, headers=self._headers)
        except httpx.HTTPError as error:
            status, reply = 0, Reply(failure=repr(error))
        else:
            status, reply = answer.status_code, _read(answer, text)
        outcome = Outcome(arrival.task, arrival.due_s, sent_s, self._now_s, status, reply)
        with self._lock:
            self._recorder.ended(outcome)


def _read(answer: httpx.Response, text: Text) -> Reply:
    """Read an answer, and whether it is right."""
    version, request_id = answer.headers.get(VERSION_HEADER), answer.headers.get(REQUEST_ID_HEADER)
    if answer.is_error:
        said = answer.text[:SHOWN_CHARACTERS]
        return Reply(failure=f"HTTP {answer.status_code}: {said}", request_id=request_id, version=version)
    is_right = answer.json().get("label") == text.language
    return Reply(request_id=request_id, version=version, correct=is_right, wrong=not is_right)
