"""The command line with its own state folder and ports, as a person at a terminal has it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pytest

from kanaria.settings import Settings
from kanaria.stack.ports import free_port
from kanaria.stack.supervision import Supervisor
from loadtest.process import RunningLoad, start
from loadtest.scenario import Scenario
from tests.support.asking import HTTP
from tests.support.paths import ROOT

_POLL_S = 0.1
_NO_PROXY_THERE = "http://127.0.0.1:9"
# A machine behind a proxy: requests between the stack's processes must not go through the proxy.
_BEHIND_A_PROXY = dict.fromkeys(
    ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"), _NO_PROXY_THERE
)


def run(arguments: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one of the project's commands as a person would, from the project's folder."""
    return subprocess.run(
        arguments, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, check=False, timeout=800
    )


@dataclass
class Kanaria:
    """The command line with its own state folder and ports."""

    home: Path
    environment: dict[str, str]

    @classmethod
    def at(cls, folder: Path, bento_home: Path, **environment: str) -> Self:
        """A command line whose state is in `folder`."""
        home = folder / ".kanaria"
        folder.mkdir(parents=True, exist_ok=True)
        own = {
            **_BEHIND_A_PROXY,
            "BENTOML_HOME": str(bento_home),
            "BENTOML_DO_NOT_TRACK": "True",
            "KANARIA_HOME": str(home),
            "KANARIA_WORKERS": "1",  # a test's traffic needs no more, and each worker takes seconds to start
            "KANARIA_DRIFT_EVERY_S": "0",  # otherwise two reports on each release would take as long as the release
            "KANARIA_GATEWAY_PORT": str(free_port()),
            "KANARIA_CONTROLLER_PORT": str(free_port()),
        }
        return cls(home, own | environment)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run([sys.executable, "-m", "kanaria", *arguments], self.environment)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command without waiting for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "kanaria", *arguments],
            env={**os.environ, **self.environment},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def settings(self, monkeypatch: pytest.MonkeyPatch) -> Settings:
        """The settings as a command reads them here."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        return Settings()

    def benchmark(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the commands of `python -m benchmarks`."""
        return run([sys.executable, "-m", "benchmarks", *arguments], self.environment)

    def ok(self, *arguments: str) -> str:
        """Run a command that must end with exit code 0, and return its output."""
        done = self(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.ok("status", "--json"))
        return answer

    def until(self, holds: Callable[[dict[str, Any]], bool], *, limit_s: float = 150.0) -> dict[str, Any]:
        """Wait until what `status --json` prints is as wanted; asks the controller directly, which is cheaper."""
        deadline = time.monotonic() + limit_s
        status: dict[str, Any] = {}
        while not (status and holds(status)):
            assert time.monotonic() < deadline, f"not within {limit_s:.0f} s; last seen: {status}"
            time.sleep(_POLL_S)
            with suppress(httpx.TransportError):  # a killed controller is back in a moment
                answer = HTTP.get(f"{self.controller}/api/status")
                status = answer.json() if answer.is_success else {}
        return status

    def back_to(self, tag: str) -> None:
        """End what a test has left of a release, and give all traffic to `tag`, which was stable here before."""
        status = self.until(bool)
        if status["release"] and status["release"]["outcome"] is None:
            self("abort")  # refused if it was decided meanwhile
            status = self.until(lambda status: status["release"]["outcome"] is not None)
        if status["stable"]["tag"] != tag:
            self.ok("restore", tag, "--anyway", "--wait")
        if (release := self.until(bool)["release"]) and release["phase"] == "watching":
            self("promote")  # ends the watch, which continues only under traffic
        self.until(lambda status: status["release"] is None or status["release"]["phase"] == "ended")

    def plan(self, **keys: object) -> str:
        """Write a quick plan and return its path; JSON is YAML."""
        path = self.home.parent / f"plan-{len(list(self.home.parent.glob('plan-*')))}.yaml"
        quick = {
            "steps": [10, 50, 100],
            "soak": "3s",
            "warmup": "none",
            "window": "1s",
            "watch": "2s",
            "holdback": "none",
            "step_deadline": "60s",
            "risk_budget": "5%",
            "signals": {"latency": {"slower_than_ms": [250], "tolerance": 2}},
        }
        path.write_text(json.dumps(quick | keys))
        return str(path)

    def pid(self, program: str) -> int:
        """The pid of one of the stack's programs."""
        info = Supervisor(self.home, self.home / "logs").info(program)
        assert info is not None
        return info.pid

    def kill(self, program: str) -> None:
        """Send SIGKILL to one of the stack's programs and all its children."""
        process = psutil.Process(self.pid(program))
        for one in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):  # a short-lived child has ended meanwhile
                one.kill()

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.environment['KANARIA_GATEWAY_PORT']}"

    @property
    def controller(self) -> str:
        return f"http://127.0.0.1:{self.environment['KANARIA_CONTROLLER_PORT']}"

    @property
    def api_key(self) -> str:
        return (self.home / "api-key").read_text()

    def users(self, samples: Path, *, rate: float = 40.0, labelled_ratio: float = 0.2) -> RunningLoad:
        """Simulated users who continue until they are stopped; each of their failures is recorded."""
        shape = [{"for_s": 600, "rate": rate}]
        scenario = Scenario.model_validate(
            {"name": "users", "seed": 3, "shape": shape, "labelled_ratio": labelled_ratio}
        )
        count = len(list(self.home.parent.glob("users-*")))
        return start(
            scenario,
            host=self.gateway,
            samples=samples,
            out_dir=self.home.parent / f"users-{count}",
            api_key=self.api_key,
        )


@contextmanager
def running(folder: Path, bento_home: Path, tag: str, **environment: str) -> Iterator[Kanaria]:
    """A stack whose stable version is `tag` and whose state is in `folder`, until the block ends."""
    made = Kanaria.at(folder, bento_home, **environment)
    try:
        made.ok("up", tag)
        yield made
    finally:
        made("down")
