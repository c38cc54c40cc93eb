"""The environment of a demo on this machine: a real stack, users and releases, in one state folder.

It empties only state folders that a demo created. Subclasses define the released service.
"""

import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

from rich.text import Text

from contract.terminal import Terminal
from kanaria.errors import SetupError, StackError
from kanaria.settings import KEY_FILES, Settings
from kanaria.stack import signing
from kanaria.stack.ports import free_port, is_free
from kanaria.stack.stack import Stack
from loadtest.results import Live, Summary
from rollout.explain.timeline import Timeline
from rollout.format import weight
from rollout.spec import RolloutSpec
from rollout.ui import terminal
from rollout.ui.cli.reading import find_release
from rollout.ui.status import decision_view

_MARK = "made-by-demo"  # lists what was in the folder before the first demo: no demo removes that

Fault = Literal["wrong", "errors", "latency", "crash", "drift"]


class Load(Protocol):
    """The requests that users send."""

    def live(self) -> Live:
        """The counters, about a second old at most."""

    def stop(self) -> Summary:
        """Send nothing new, let requests in flight finish, and return the summary. Raises LoadTestError."""


class DemoEnvironment(ABC):
    """What the demo of one service needs. Prints its progress on the terminal."""

    service: ClassVar[str]  # shown name
    baseline_s: ClassVar[float]  # seconds of traffic to stable alone, which show the noise of this machine
    variant_of_v3: ClassVar[Mapping[Fault, str]]  # by fault, the variant that v3 is built from

    def __init__(self, settings: Settings, console: Terminal, *, model: str) -> None:
        """
        Args:
            model: the Bento's name.
        """
        self.settings, self.console, self.model = settings, console, model
        self.root = settings.root
        self.stack = Stack(settings, by="demo")
        self._began_s = time.monotonic()

    @classmethod
    def here(cls, console: Terminal) -> Self:
        """An environment in the state folder of the current settings, with its own Bento store and free ports."""
        settings = Settings()
        os.environ |= {"BENTOML_HOME": str(settings.root / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
        for name, port in (("GATEWAY", settings.gateway_port), ("CONTROLLER", settings.controller_port)):
            os.environ[f"KANARIA_{name}_PORT"] = str(port if is_free(settings.host, port) else free_port())
        return cls.of(Settings(), console)

    @classmethod
    @abstractmethod
    def of(cls, settings: Settings, console: Terminal) -> Self:
        """An environment with these settings. Raises SetupError if the service is not in this folder."""

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    @abstractmethod
    def plan(self) -> RolloutSpec:
        """The plan of the service. Raises SpecError."""

    def build(self, versions: Mapping[str, str]) -> None:
        """Build a Bento of each version, and sign those that must be signed. Raises StackError, SetupError.

        Args:
            versions: version -> variant of the service that it is built from.
        """
        self._build(versions)
        for tag in (f"{self.model}:{version}" for version in versions):
            # A signature may be required, for example because a Bento of this name was signed here before.
            if signing.is_to_be_verified(self.settings, tag):
                signing.sign_version(self.settings, tag, None)
                self.say(f"signed {tag}")

    @abstractmethod
    def _build(self, versions: Mapping[str, str]) -> None:
        """Build a Bento of each version. Raises StackError."""

    @abstractmethod
    def users(self) -> AbstractContextManager[Load]:
        """Start simulated users of the gateway. They stop at the end of the block. Raises LoadTestError."""

    def clear(self) -> None:
        """Delete what an earlier demo left in the state folder, except keys and foreign files. Raises SetupError.

        The record of signed items stays: otherwise a version of yours could lose its signature and still run.
        """
        if self.stack.is_running:
            raise SetupError(
                "a stack runs in this state folder",
                saw=str(self.root),
                do="stop it with `kanaria down`, or set KANARIA_HOME to another folder",
            )
        self._check_signatures()
        mark = self.root / _MARK
        if not mark.exists():
            if self.settings.ledger.exists():
                raise SetupError(
                    "this state folder has a ledger that is not of a demo",
                    saw=str(self.settings.ledger),
                    do="set KANARIA_HOME to another folder for the demo",
                )
            self.root.mkdir(parents=True, exist_ok=True)
            mark.write_text("".join(f"{entry.name}\n" for entry in self.root.iterdir()))
        signed = (self.settings.signed_bentos.name, self.settings.signed_models.name)
        kept = {_MARK, *KEY_FILES, *signed, *mark.read_text().splitlines()}
        for entry in self.root.iterdir():
            if entry.name not in kept:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _check_signatures(self) -> None:
        """Refuse settings with which the demo's Bentos could not run: it signs only with the state folder's key."""
        given, own = self.settings.public_key, self.settings.own_public_key
        if given and self.settings.signatures != "off" and not (own.exists() and own.read_bytes() == _content(given)):
            raise SetupError(
                "the demo cannot sign with the key that the settings require",
                saw=f"KANARIA_PUBLIC_KEY is {given}, which is not {own}",
                do="unset KANARIA_PUBLIC_KEY for the demo",
            )
        for is_bento in (True, False):  # an unreadable record fails now, not after minutes
            signing.was_signed(self.settings, signing.Item(f"{self.model}:v1", is_bento=is_bento))

    @contextmanager
    def up(self, version: str) -> Iterator[None]:
        """Run the stack with `version` as stable; stop it at the end, whatever happens. Raises StackError."""
        try:
            with self.working("starting the stack"):
                self.stack.up(f"{self.model}:{version}", say=self.say)
            yield
        finally:
            with self.working("stopping the stack"):
                self.stack.down(say=lambda _: None)

    def say_rate(self, rate: float) -> None:
        """Print the rate of requests, and why it is not higher."""
        self.say(f"users: {rate:.0f} requests per second through {self.settings.gateway_url}, kept low on purpose:")
        self.say("everything shares this machine, and a saturated one would judge itself")

    def wait(self, seconds: float, why: str) -> None:
        """Let time pass."""
        with self.working(f"{seconds:.0f} s of {why}"):
            time.sleep(seconds)

    def release(
        self,
        version: str,
        plan: RolloutSpec,
        load: Load,
        *,
        limit_s: float,
        on_update: Callable[[Timeline], None] = lambda _: None,
    ) -> Timeline:
        """Release a version and follow it to its end. It is aborted if it has not ended after `limit_s` seconds."""
        tag = f"{self.model}:{version}"
        number = self.stack.client.release(tag, plan)
        deadline = time.monotonic() + limit_s
        shown = 0
        with self.console.status("") as status:
            while True:
                release = find_release(self.settings.ledger, str(number))
                for decision in release.decisions[shown:]:
                    self.console.print(terminal.decision(decision_view(decision)))
                shown = len(release.decisions)
                if release.ended_s is not None:
                    return release
                live = load.live()
                now = f"{tag} at {weight(release.state.weight_percent)}: {release.last_why or 'starting'}"
                status.update(Text(f"{now} · clients: {live.requests:,} requests, {live.failures} failed"))
                on_update(release)
                if time.monotonic() > deadline and release.state.outcome is None:
                    self.stack.client.command("abort", reason=f"not decided after {limit_s:.0f} s")
                time.sleep(0.5)

    def say(self, text: str) -> None:
        """Print one line with the time since the beginning."""
        self.console.print(Text.assemble((f"{self.elapsed_s:4.0f} s", "dim"), f" {text}"))

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show `what` as the current activity."""
        with self.console.status(f"{what} ..."):
            yield

    def run_python(self, *arguments: str, folder: Path | None = None) -> str:
        """Run a Python program in `folder` and return its output. Raises StackError."""
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            log = self.root / "failed-command.log"
            log.write_text(done.stdout + done.stderr)
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise StackError(f"`python {' '.join(arguments)}` failed", saw=" ".join(last), do=f"read {log}")
        return done.stdout


def _content(file: Path) -> bytes:
    with suppress(OSError):
        return file.read_bytes()
    return b""
