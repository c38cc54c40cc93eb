"""Finds the class that loads a model: from a Bento that was built with it, or from the bentofile here."""

from contextlib import suppress
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from kanaria.errors import SetupError
from kanaria.stack.bentos import bento_tags, implementation_of, model_of

_BENTOFILE = Path("bentofile.yaml")


class _Arguments(BaseModel):
    """The arguments of a bentofile."""

    model: str
    implementation: str


def implementation_for(model: str) -> tuple[str, Path]:
    """The class that loads a model, as `package.module:Class`, and the folder with that package. Raises SetupError."""
    for bento in bento_tags():
        with suppress(SetupError):
            if model_of(bento) == model:
                return implementation_of(bento)
    return implementation_here(model.partition(":")[0]), Path.cwd()


def implementation_here(name: str | None) -> str:
    """The class in the bentofile here, if it is for models of that name. Raises SetupError."""
    try:
        arguments = _Arguments.model_validate(yaml.safe_load(_BENTOFILE.read_text())["args"])
        if name not in (None, own := arguments.model.partition(":")[0]):
            saw = f"{_BENTOFILE.absolute()} is for {own}"
        else:
            return arguments.implementation
    except (OSError, yaml.YAMLError, ValidationError, KeyError, TypeError) as error:
        saw = f"{type(error).__name__} while reading `args` of {_BENTOFILE.absolute()}"
    raise SetupError(
        "the class that loads this model is unknown",
        saw=saw,
        do="build its Bento first, or name the class: --implementation package.module:Class",
    )
