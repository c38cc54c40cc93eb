"""The built-in metric profiles, and those in a folder of the user."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollout.errors import SpecError
from rollout.signals.profile import Profile, parse_profile, profile_data

_FOLDER = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def built_in() -> dict[str, Profile]:
    """Kanaria's own profiles, by name."""
    return {path.stem: parse_profile(path.read_text(), name=path.stem) for path in sorted(_FOLDER.glob("*.yaml"))}


def profiles(folder: Path | None = None) -> dict[str, Profile]:
    """All profiles by name; those in `folder` replace built-in ones. Raises SpecError."""
    known = built_in()
    if folder is None:
        return known
    if not folder.is_dir():
        raise SpecError("there is no folder of profiles", saw=str(folder), do="name the folder with the profiles")
    base = _contents()
    for path in sorted(folder.glob("*.yaml")):
        if not _NAME.fullmatch(path.stem):
            do = "rename it: small letters, digits and `-`, such as `my-mesh.yaml`"
            raise SpecError("the name of a profile's file is not valid", saw=path.name, do=do)
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"profile {path} cannot be read", saw=str(error), do="give a YAML file") from error
        known[path.stem] = parse_profile(text, name=path.stem, known=base)
    return known


def _contents() -> Mapping[str, Mapping[str, Any]]:
    return {path.stem: profile_data(path.read_text(), name=path.stem) for path in sorted(_FOLDER.glob("*.yaml"))}
