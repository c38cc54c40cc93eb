"""The settings in the environment that a process needs to be started in the same way later."""

import os
from pathlib import Path
from typing import get_args

from pydantic import SecretStr

from kanaria.private_files import PERSONAL_TOKEN
from kanaria.settings import Settings

_PREFIXES = ("KANARIA_", "BENTOML_")
_KEPT = ("KANARIA_KEPT_",)  # the marks of one process, see `processes`


def given_environment(settings: Settings) -> dict[str, str]:
    """The settings in the environment, with secrets, and with the state folder as an absolute path."""
    given = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_PREFIXES) and not name.startswith(_KEPT) and name != PERSONAL_TOKEN and value
    }
    paths = {name: str(Path(given[name]).absolute()) for name in _path_settings() & given.keys()}
    return {**given, **paths, "KANARIA_HOME": str(settings.root)}


def secret_names() -> frozenset[str]:
    """The variables that only the owner may read."""
    return frozenset(
        _variable(name) for name, field in Settings.model_fields.items() if _is(field.annotation, SecretStr)
    )


def _path_settings() -> frozenset[str]:
    paths = {_variable(name) for name, field in Settings.model_fields.items() if _is(field.annotation, Path)}
    return frozenset(paths | {"BENTOML_HOME"})


def _is(annotation: object, wanted: type) -> bool:
    return annotation is wanted or wanted in get_args(annotation)


def _variable(name: str) -> str:
    return f"KANARIA_{name.upper()}"
