"""Where a demo runs for real on this machine: Bentos, the stack, users and releases, all in one state folder.

It empties only state folders that it made itself.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import yaml
from rich.text import Text

from contract.model_files import SAMPLES_FILE
from contract.terminal import Terminal
from kanaria.errors import SetupError, StackError
from kanaria.settings import KEY_FILES, Settings
from kanaria.stack.bentos import model_folder
from kanaria.stack.ports import free_port, is_free
from kanaria.stack.stack import Stack
from loadtest.process import RunningLoad, start
from loadtest.scenario import Scenario
from rollout.explain.timeline import Timeline
from rollout.format import weight
from rollout.spec import RolloutSpec
from rollout.ui import terminal
from rollout.ui.cli.plan import DEFAULT_SPEC, read_spec
from rollout.ui.cli.reading import find_release
from rollout.ui.status import decision_view

_MARK = "made-by-demo"  # lists what was in the folder before the first demo, which every demo leaves alone
_BENTOFILE = Path("bentofile.yaml")


class DemoEnvironment:
    """Everything that a demo needs, with its progress on the terminal."""

    def __init__(self, settings: Settings, console: Terminal) -> None:
        self.settings, self.console = settings, console
        self.root = settings.root
        self.stack = Stack(settings, by="demo")
        self._began_s = time.monotonic()
        self._package, self.model = _example()

    @classmethod
    def here(cls, console: Terminal) -> Self:
        """An environment in the state folder of the current settings, with its own Bento store and free ports."""
        settings = Settings()
        os.environ |= {"BENTOML_HOME": str(settings.root / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
        for name, port in (("GATEWAY", settings.gateway_port), ("CONTROLLER", settings.controller_port)):
            os.environ[f"KANARIA_{name}_PORT"] = str(port if is_free(settings.host, port) else free_port())
        return cls(Settings(), console)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def plan(self) -> RolloutSpec:
        """The plan beside the example model. Raises SpecError."""
        return read_spec(Path(*self._package.split("."), DEFAULT_SPEC))

    def clear(self) -> None:
        """Delete what an earlier demo left in the state folder, but no keys and no other files. Raises SetupError."""
        if self.stack.is_running:
            raise SetupError(
                "a stack runs in this state folder",
                saw=str(self.root),
                do="stop it with `kanaria down`, or set KANARIA_HOME to another folder",
            )
        mark = self.root / _MARK
        if not mark.exists():
            if self.settings.ledger.exists():
                raise SetupError(
                    "this state folder has a ledger that no demo made",
                    saw=str(self.settings.ledger),
                    do="set KANARIA_HOME to another folder for the demo",
                )
            self.root.mkdir(parents=True, exist_ok=True)
            mark.write_text("".join(f"{entry.name}\n" for entry in self.root.iterdir()))
        kept = {_MARK, *KEY_FILES, *mark.read_text().splitlines()}
        for entry in self.root.iterdir():
            if entry.name not in kept:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def build(self, versions: Mapping[str, str]) -> None:
        """Train the variants and build a Bento of each version. Raises StackError.

        Args:
            versions: version -> variant of the example model that it is built from.
        """
        with self.working("training"):
            output = self._python("-m", f"{self._package}.train", *dict.fromkeys(versions.values()))
        for line in output.splitlines():
            self.say(line)
        for version, variant in versions.items():
            tag = f"{self.model}:{version}"
            with self.working(f"bentoml build of {tag}"):
                self._python("-m", "bentoml", "build", "--version", version, "--arg", f"model={self.model}:{variant}")
            self.say(f"built {tag}")
        first = next(iter(versions.values()))
        shutil.copy(model_folder(f"{self.model}:{first}") / SAMPLES_FILE, self.settings.samples)

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

    def retaken_samples(self) -> Path:
        """The samples as another camera would send them. Raises StackError."""
        path = self.root / "samples-retaken.jsonl"
        self._python("-m", f"{self._package}.camera", str(self.settings.samples), str(path))
        return path

    def users(self, scenario: Scenario, *, samples: Path | None = None) -> RunningLoad:
        """Start simulated users at the gateway. They send the example's own samples unless others are given."""
        with self.working("starting the users"):
            load = start(
                scenario,
                host=self.settings.gateway_url,
                samples=samples or self.settings.samples,
                out_dir=self.root / "loadtest",
                api_key=self.settings.api_key if self.settings.needs_api_key else None,
            )
        rate = scenario.shape[0].rate
        self.say(f"users: {rate:.0f} requests per second through {self.settings.gateway_url}, kept low on purpose:")
        self.say("everything shares this machine, and a saturated one would judge itself")
        return load

    def wait(self, seconds: float, why: str) -> None:
        """Let time pass."""
        with self.working(f"{seconds:.0f} s of {why}"):
            time.sleep(seconds)

    def release(
        self,
        version: str,
        plan: RolloutSpec,
        load: RunningLoad,
        *,
        limit_s: float,
        on_update: Callable[[Timeline], None] = lambda _: None,
    ) -> Timeline:
        """Release a version and follow it to its end; one that is not over after `limit_s` is aborted."""
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
        """Show what is being done."""
        with self.console.status(f"{what} ..."):
            yield

    def _python(self, *arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            log = self.root / "failed-command.log"
            log.write_text(done.stdout + done.stderr)
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise StackError(f"`python {' '.join(arguments)}` failed", saw=" ".join(last), do=f"read {log}")
        return done.stdout


def _example() -> tuple[str, str]:
    """The example model's package and the Bento's name, as bentofile.yaml has them. Raises SetupError."""
    if not _BENTOFILE.exists():
        raise SetupError(
            "there is no model to build here",
            saw=f"no {_BENTOFILE} in {Path.cwd()}",
            do="run this in the project's folder",
        )
    bentofile = yaml.safe_load(_BENTOFILE.read_text())
    package, _, _ = bentofile["args"]["implementation"].rpartition(".")
    return package, bentofile["name"]
