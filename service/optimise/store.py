"""Optimises a model of the BentoML store: measures, chooses, and saves a new version with its engine and the reason."""

import pkgutil
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import bentoml
import torch
from bentoml.exceptions import BentoMLException, NotFound

from contract.model_files import GOLDEN_FILE, Golden
from contract.records import write_lines
from service.contract import Model
from service.engines import METADATA_KEY, Engine, move
from service.optimise.choice import Measurement, Trial, choose, refusal
from service.optimise.errors import OptimiseError
from service.optimise.measure import TRIED_ROWS, Evidence, golden_answers, try_all
from service.signatures import SIGNATURE_FILE

OTHERS = tuple(engine for engine in Engine if engine is not Engine.EAGER)
# Files of the original version that the new version does not get.
_NOT_COPIED = ("model.yaml", SIGNATURE_FILE, *(engine.file for engine in Engine if engine.file))


@dataclass(frozen=True)
class Comparison:
    """The results of a model on every engine that was tried."""

    tag: str
    eager: Measurement
    trials: tuple[Trial, ...]  # of the other engines
    tolerance: float  # the most accuracy that may be lost, 0-1
    only: Engine | None  # choose this engine, however fast it is; None: the fastest

    @cached_property
    def chosen(self) -> Measurement | None:
        """The engine to use; None: the only engine asked for is refused."""
        if self.only is None:
            return choose(self.trials, self.eager, self.tolerance)
        (trial,) = self.trials
        return trial if isinstance(trial, Measurement) and not self.refusal(trial) else None

    def refusal(self, trial: Trial) -> str | None:
        """See `choice.refusal`."""
        return refusal(trial, self.eager, self.tolerance)


class Optimiser:
    """One model, and a folder with the files of its engines. Made by `optimising`."""

    def __init__(self, tag: str, implementation: str, work: Path, files: Path | None) -> None:
        self._source = _stored(tag)
        self._folder = files or Path(self._source.path)
        self._load = partial(_implementation(implementation), self._folder)
        self._evidence = Evidence.read(self._folder)
        self._work = work
        torch.set_num_threads(1)  # as every worker has it

    def compare(self, *, tolerance: float, only: Engine | None = None) -> Comparison:
        """Measure the engines. Raises OptimiseError."""
        eager, trials = try_all(self._load, self._evidence, self._work, (only,) if only else OTHERS)
        return Comparison(str(self._source.tag), eager, tuple(trials), tolerance, only)

    def new_tag(self, version: str | None, *, replace: bool) -> bentoml.Tag:
        """The tag of the optimised model. Raises OptimiseError if it is taken."""
        new = bentoml.Tag(self._source.tag.name, version or f"{self._source.tag.version}-fast")
        if new == self._source.tag:
            raise OptimiseError(f"{new} cannot replace itself", saw=f"--version {version}", do="give another version")
        if _is_stored(new) and not replace:
            raise OptimiseError(f"there is already a model {new}", saw=f"{new} in the store", do="add --replace")
        return new

    def save(self, done: Comparison, chosen: Measurement, new: bentoml.Tag) -> None:
        """Save the model as `new`, with the file of the chosen engine and the measurements behind the choice."""
        if _is_stored(new):
            bentoml.models.delete(new)
        metadata = {
            **self._source.info.metadata,
            METADATA_KEY: chosen.engine.value,
            "fallback": Engine.EAGER.value,
            "optimised_from": done.tag,
            "optimised_on": platform.machine(),
            "accuracy_tolerance": done.tolerance,
            "measurements": [_noted(trial) for trial in (done.eager, *done.trials)],
        }
        with bentoml.models.create(new, labels=self._source.info.labels, metadata=metadata) as created:
            folder = Path(created.path)
            shutil.copytree(self._folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
            if chosen.engine.file is not None:
                shutil.copy(self._work / chosen.engine.file, folder)
            self._rewrite_golden(chosen.engine, folder)

    def _rewrite_golden(self, engine: Engine, folder: Path) -> None:
        """Write this engine's golden answers: the same labels (or it would have been refused), its own confidences."""
        model = self._load()
        move(model, engine, folder, self._evidence.rows[:TRIED_ROWS])
        write_lines(
            folder / GOLDEN_FILE,
            (
                Golden(features=known.features, predictions=tuple(golden_answers(model, known)))
                for known in self._evidence.golden
            ),
        )


@contextmanager
def optimising(tag: str, implementation: str, files: Path | None = None) -> Iterator[Optimiser]:
    """Open a model of the store for optimising.

    Args:
        tag: the model, `name:version`.
        implementation: the class that loads it, as `package.module:Class`.
        files: its verified files; None: those in the store.

    Raises: OptimiseError.
    """
    with tempfile.TemporaryDirectory() as work:
        yield Optimiser(tag, implementation, Path(work), files)


def _noted(trial: Trial) -> dict[str, Any]:
    """A trial as plain values that BentoML can write as YAML."""
    noted = asdict(trial)
    if isinstance(trial, Measurement):
        noted["ms"] = {str(rows): round(ms, 4) for rows, ms in trial.ms.items()}
        noted["accuracy"] = round(trial.accuracy, 6)
    return {**noted, "engine": trial.engine.value}


def _is_stored(tag: bentoml.Tag) -> bool:
    return any(model.tag == tag for model in bentoml.models.list())


def _stored(tag: str) -> Any:
    try:
        return bentoml.models.get(tag)
    except (NotFound, BentoMLException, ValueError) as error:
        known = ", ".join(sorted(str(model.tag) for model in bentoml.models.list())) or "none"
        raise OptimiseError(
            f"there is no model {tag}", saw=f"models here: {known}", do="train it, or correct the tag"
        ) from error


def _implementation(name: str) -> type[Model]:
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptimiseError(
            f"the class {name} cannot be imported", saw=str(error), do="name it as `package.module:Class`"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise OptimiseError(f"{name} is not a model", saw=repr(found), do="derive it from service.contract.Model")
    return found
