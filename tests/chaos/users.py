"""Users who send requests continuously, and record each request and the gateway's split.

They run in their own process (`python -m tests.chaos.users`), so that the driver's other work does not delay them.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import httpx

from contract.http import API_KEY_HEADER, PREDICT_PATH, VERSION_HEADER
from rollout.routers.envoy.routes import split_of
from rollout.routers.router import ObservedSplit
from tests.support.paths import ROOT

RATE = 40.0  # requests/s
_TIMEOUT_S = 15.0  # the gateway itself answers after 10 s
_SAMPLE_S = 0.2
_API_KEY = "CHAOS_API_KEY"  # not an argument: every user of the machine can see arguments


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and its result."""

    sent_s: float  # Unix seconds
    took_s: float
    status: int  # HTTP status; 0: no answer
    version: str | None  # the version that answered; None: the gateway itself, or no answer
    error: str = ""

    @property
    def ended_s(self) -> float:
        return self.sent_s + self.took_s

    @property
    def has_failed(self) -> bool:
        return self.status != httpx.codes.OK


@dataclass
class Users:
    """The users' process, and what it has recorded so far. It runs until its `with` block ends.

    Args:
        gateway: its URL.
        api_key: sent with each request.
        samples: the rows to send, as JSON lines.
        admin: the gateway's admin socket.
        notes: the file to which the process writes.
    """

    gateway: str
    api_key: str
    samples: Path
    admin: Path
    notes: Path
    answers: list[Answer] = field(default_factory=list)
    splits: list[tuple[float, ObservedSplit]] = field(default_factory=list)  # start (Unix seconds) and split
    _read_to: int = 0

    def __enter__(self) -> Self:
        self.notes.touch()
        arguments = map(str, (self.gateway, self.samples, self.admin, self.notes))
        command = [sys.executable, "-m", "tests.chaos.users", *arguments]
        environment = {**os.environ, _API_KEY: self.api_key}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(2 * _TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.read()

    def read(self) -> Self:
        """Read what was recorded since the last call."""
        with self.notes.open("rb") as notes:
            notes.seek(self._read_to)
            text = notes.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.splitlines():
            note: dict[str, Any] = json.loads(line)
            if "at_s" in note:
                self.splits.append((note.pop("at_s"), ObservedSplit(**note)))
            else:
                self.answers.append(Answer(**note))
        return self

    @property
    def split(self) -> ObservedSplit | None:
        """The last observed split."""
        self.read()
        return self.splits[-1][1] if self.splits else None


class _Sending:
    """What the process does until SIGTERM; then it waits for the outstanding answers."""

    def __init__(self, gateway: str, samples: Path, admin: Path, notes: TextIO) -> None:
        self._gateway, self._admin, self._notes = gateway, admin, notes
        self._rows = [json.loads(line)["features"] for line in samples.read_text().splitlines()]
        self._random = random.Random(7)
        self._headers = {API_KEY_HEADER: os.environ[_API_KEY]}

    async def run(self) -> None:
        self._stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, limits=limits) as client:
            sampling = asyncio.create_task(self._sample())
            sending: set[asyncio.Task[None]] = set()
            due_s = time.monotonic()
            while not self._stopping.is_set():
                sending.add(task := asyncio.create_task(self._send(client)))
                task.add_done_callback(sending.discard)
                due_s = max(due_s + 1 / RATE, time.monotonic() - 1.0)  # a pause of this process causes no burst
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await asyncio.gather(*sending, sampling)

    async def _send(self, client: httpx.AsyncClient) -> None:
        body = {"features": [self._random.choice(self._rows)]}
        sent_s, began_s = time.time(), time.monotonic()
        status, version, error = 0, None, ""
        try:
            answer = await client.post(f"{self._gateway}{PREDICT_PATH}", json=body, headers=self._headers)
            status, version = answer.status_code, answer.headers.get(VERSION_HEADER)
            error = "" if answer.is_success else answer.text[:100]
        except httpx.HTTPError as failure:
            error = type(failure).__name__
        self._note(asdict(Answer(sent_s, time.monotonic() - began_s, status, version, error)))

    async def _sample(self) -> None:
        last = None
        transport = httpx.AsyncHTTPTransport(uds=str(self._admin))
        async with httpx.AsyncClient(timeout=1.0, transport=transport) as client:
            while not self._stopping.is_set():
                at_s, split = time.time(), await self._split(client)
                if split is not None and split != last:
                    self._note({"at_s": at_s, **asdict(split)})
                    last = split
                await asyncio.sleep(_SAMPLE_S)

    async def _split(self, client: httpx.AsyncClient) -> ObservedSplit | None:
        """The split in force; None while the gateway cannot be read."""
        try:
            answer = await client.get("http://gateway/config_dump", params={"resource": "dynamic_route_configs"})
            dump = answer.raise_for_status().json()
            return split_of(dump["configs"][0]["route_config"])
        except (OSError, httpx.HTTPError, ValueError, LookupError):
            return None

    def _note(self, note: Mapping[str, object]) -> None:
        self._notes.write(json.dumps(note) + "\n")
        self._notes.flush()


def main() -> None:
    """Send requests until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gateway")
    for name in ("samples", "admin", "notes"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    with options.notes.open("a") as notes:
        asyncio.run(_Sending(options.gateway, options.samples, options.admin, notes).run())


if __name__ == "__main__":
    main()
