"""The demo of a service without the model contract, which detects the language of texts in four languages."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Self

from contract.terminal import Terminal
from kanaria.demo.environment import DemoEnvironment
from kanaria.demo.text_users import Phrases, TextUsers
from kanaria.errors import SetupError
from kanaria.settings import Settings
from loadtest.scenario import Mix, load_scenario
from rollout.spec import RolloutSpec
from rollout.ui.cli.plan import read_spec

_EXAMPLE = Path("examples", "languages")
_PLAN = "demo.yaml"
# v1 counts single letters, v2 three in a row. Twelve in a row almost never repeat, so v3 guesses.
_ARGUMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"v1": (), "v2": ("--arg", "letters=3"), "v3": ("--arg", "letters=12")}
)


class TextDemo(DemoEnvironment):
    """The example `languages`, as its README builds it."""

    service = "text"
    baseline_s = 10.0
    variant_of_v3 = MappingProxyType({"wrong": "v3", "crash": "v2"})

    @classmethod
    def of(cls, settings: Settings, console: Terminal) -> Self:
        """See `DemoEnvironment`."""
        if not _EXAMPLE.is_dir():
            raise SetupError(
                "there is no text service to build here",
                saw=f"no folder {_EXAMPLE} in {Path.cwd()}",
                do="run the demo in the project's folder",
            )
        return cls(settings, console, model=_EXAMPLE.name)

    def plan(self) -> RolloutSpec:
        """See `DemoEnvironment`."""
        return read_spec(_EXAMPLE / _PLAN)

    def _build(self, versions: Mapping[str, str]) -> None:
        """See `DemoEnvironment`."""
        for version, variant in versions.items():
            tag = f"{self.model}:{version}"
            with self.working(f"bentoml build of {tag}"):
                arguments = ("--version", version, *_ARGUMENTS[variant])
                self.run_python("-P", "-m", "bentoml", "build", *arguments, folder=_EXAMPLE)
            self.say(f"built {tag}")

    @contextmanager
    def users(self) -> Iterator[TextUsers]:
        """See `DemoEnvironment`."""
        only_texts = {"mix": Mix(one_row=1, many_rows=0, bad_input=0), "labelled_ratio": 0.0}
        scenario = load_scenario("demo").model_copy(update=only_texts)
        key = self.settings.api_key if self.settings.needs_api_key else None
        phrases = Phrases(_EXAMPLE / "phrases.tsv")
        with TextUsers(scenario, phrases, host=self.settings.gateway_url, api_key=key) as users:
            self.say_rate(scenario.shape[0].rate)
            yield users
