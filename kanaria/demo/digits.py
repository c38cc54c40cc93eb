"""The demo of the example model `digits`, which keeps the contract. It is trained before it is built."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

import yaml

from contract.model_files import SAMPLES_FILE
from contract.terminal import Terminal
from kanaria.demo.environment import DemoEnvironment
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.bentos import model_folder
from loadtest.process import RunningLoad, start
from loadtest.scenario import load_scenario
from rollout.spec import RolloutSpec
from rollout.ui.cli.plan import DEFAULT_SPEC, read_spec

_BENTOFILE = Path("bentofile.yaml")


class DigitsDemo(DemoEnvironment):
    """The model in `bentofile.yaml` of the working directory."""

    service = "digits"
    baseline_s = 45.0
    variant_of_v3 = MappingProxyType({"wrong": "v3", "errors": "v3-errors", "latency": "v3-latency", "crash": "v2"})

    def __init__(self, settings: Settings, console: Terminal, *, model: str, package: str) -> None:
        super().__init__(settings, console, model=model)
        self._package = package

    @classmethod
    def of(cls, settings: Settings, console: Terminal) -> Self:
        """See `DemoEnvironment`."""
        if not _BENTOFILE.exists():
            raise SetupError(
                "there is no model to build here",
                saw=f"no {_BENTOFILE} in {Path.cwd()}",
                do="run the demo in the project's folder",
            )
        bentofile = yaml.safe_load(_BENTOFILE.read_text())
        package, _, _ = bentofile["args"]["implementation"].rpartition(".")
        return cls(settings, console, model=bentofile["name"], package=package)

    def plan(self) -> RolloutSpec:
        """See `DemoEnvironment`."""
        return read_spec(Path(*self._package.split("."), DEFAULT_SPEC))

    def _build(self, versions: Mapping[str, str]) -> None:
        """See `DemoEnvironment`."""
        with self.working("training"):
            output = self.run_python("-m", f"{self._package}.train", *dict.fromkeys(versions.values()))
        for line in output.splitlines():
            self.say(line)
        for version, variant in versions.items():
            tag = f"{self.model}:{version}"
            with self.working(f"bentoml build of {tag}"):
                arguments = ("--version", version, "--arg", f"model={self.model}:{variant}")
                self.run_python("-m", "bentoml", "build", *arguments)
            self.say(f"built {tag}")
        first = next(iter(versions.values()))
        shutil.copy(model_folder(f"{self.model}:{first}") / SAMPLES_FILE, self.settings.samples)

    def retaken_samples(self) -> Path:
        """The samples as from another camera. Raises StackError."""
        path = self.root / "samples-retaken.jsonl"
        self.run_python("-m", f"{self._package}.camera", str(self.settings.samples), str(path))
        return path

    def users(self, *, samples: Path | None = None) -> RunningLoad:
        """See `DemoEnvironment`. The default samples are the example's own."""
        scenario = load_scenario("demo")
        with self.working("starting the users"):
            load = start(
                scenario,
                host=self.settings.gateway_url,
                samples=samples or self.settings.samples,
                out_dir=self.root / "loadtest",
                api_key=self.settings.api_key if self.settings.needs_api_key else None,
            )
        self.say_rate(scenario.shape[0].rate)
        return load
