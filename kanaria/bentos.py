"""What the local BentoML store holds, read from its folders: importing bentoml for its own listing takes seconds."""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from kanaria.errors import SetupError

_MANIFEST = "bento.yaml"


def bento_tags() -> tuple[str, ...]:
    """Tags of the Bentos in the store, sorted."""
    return _tags("bentos", _MANIFEST)


def model_folder(tag: str) -> Path:
    """The files of a model, by its own tag. Raises SetupError."""
    folder = _home() / "models" / tag.replace(":", "/", 1)
    if ":" not in tag or not (folder / "model.yaml").exists():
        known = ", ".join(_tags("models", "model.yaml")) or "none"
        raise SetupError(
            f"there is no model {tag}",
            saw=f"models here: {known}",
            do=f"{_hint(tag)}train it, or correct the tag (`name:version`)",
        )
    return folder


def model_of(bento: str) -> str:
    """The tag of the model that a Bento was built with. Raises SetupError."""
    tags = [model["tag"] for service in _manifest(bento)["services"] for model in service["models"]]
    if not tags:
        saw = f"none in {_bento_folder(bento) / _MANIFEST}"
        raise SetupError(f"{bento} has no model", saw=saw, do="build it with `--arg model=TAG`")
    return str(tags[0])


def implementation_of(bento: str) -> tuple[str, Path]:
    """The class that loads a Bento's model, `package.module:Class`, and the folder with that package.

    Raises SetupError.
    """
    return str(_manifest(bento)["args"]["implementation"]), _bento_folder(bento) / "src"


def yardstick_of(bento: str) -> str | None:
    """How a Bento's answers are counted and compared: `answer` of its model's schema, as JSON. None when unknown."""
    try:
        schema = json.loads((model_folder(model_of(bento)) / "schema.json").read_bytes())
        return json.dumps(schema["answer"])
    except (SetupError, OSError, ValueError, KeyError):  # its server or its preflight will say what is wrong
        return None


def _manifest(bento: str) -> Any:
    path = _bento_folder(bento) / _MANIFEST
    if ":" not in bento or not path.exists():
        raise SetupError(
            f"there is no Bento {bento}",
            saw=f"Bentos here: {', '.join(bento_tags()) or 'none'}",
            do="build it (`bentoml build --version ...`) or correct the tag",
        )
    return yaml.safe_load(path.read_text())


def _bento_folder(bento: str) -> Path:
    return _home() / "bentos" / bento.replace(":", "/", 1)


def _home() -> Path:
    return Path(os.environ.get("BENTOML_HOME", Path.home() / "bentoml"))


def _tags(kind: str, file: str) -> tuple[str, ...]:
    return tuple(sorted(f"{path.parent.parent.name}:{path.parent.name}" for path in _home().glob(f"{kind}/*/*/{file}")))


def _hint(tag: str) -> str:
    """A Bento's tag where a model's was asked for is an easy slip."""
    return f"{tag} is a Bento, its model is {model_of(tag)}; else " if tag in bento_tags() else ""
