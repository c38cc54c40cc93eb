"""All versions that can be started here: the Bentos of the store, and what `versions.yaml` lists."""

from pathlib import Path
from typing import Any

from contract.complaints import nearest
from kanaria.errors import SetupError
from kanaria.stack.bentos import bento_tag, bento_tags, schemas_of, service_of
from kanaria.stack.listed import Listed, read_listed
from rollout.fleet import Service


class Versions:
    """Versions by their tags."""

    def __init__(self, path: Path | None) -> None:
        """`path`: the file that lists the versions that are not Bentos; None: there is none."""
        self._path = path

    def tags(self) -> tuple[str, ...]:
        """Every tag, sorted. Raises SetupError."""
        return tuple(sorted((*bento_tags(), *self._listed())))

    def full_tag(self, tag: str) -> str:
        """The full tag for one that a person wrote: `name` and `name:latest` mean the newest. Raises SetupError."""
        listed, small = self._listed(), tag.lower()
        if not listed:
            return bento_tag(tag)
        name, _, version = small.partition(":")
        if version in ("", "latest"):
            of_list = [one for one in listed if one.partition(":")[0] == name]
            of_store = [one for one in bento_tags() if one.partition(":")[0] == name]
            if of_list and of_store:
                raise SetupError(
                    f"it is not clear which {name} is the newest",
                    saw=f"Bentos: {', '.join(of_store)}; listed in {self._path}: {', '.join(of_list)}",
                    do="write the full tag",
                )
            return of_list[-1] if of_list else bento_tag(tag)
        self.require(small)
        return small

    def require(self, tag: str) -> None:
        """Raise SetupError if there is no such version."""
        known = self.tags()
        if tag not in known:
            raise SetupError(
                f"there is no version {tag}{nearest(tag, known)}",
                saw=f"versions here: {', '.join(known) or 'none'}",
                do="build it (`bentoml build --version ...`), list it in the file KANARIA_VERSIONS, or correct the tag",
            )

    def listed(self, tag: str) -> Listed | None:
        """The entry of a version in the file; None if it is not listed, or is a Bento. Raises SetupError."""
        return None if self._path is None or tag in bento_tags() else self._listed().get(tag)

    def require_startable(self, tag: str) -> None:
        """Raise SetupError if the command of a version cannot be started."""
        listed = self.listed(tag)
        if listed is not None and (obstacle := listed.obstacle) is not None:
            raise SetupError(f"{tag} cannot be started", saw=obstacle, do=f"correct its entry in {self._path}")

    def service(self, tag: str) -> Service:
        """The routes and limits of a version. Raises SetupError."""
        listed = self.listed(tag)
        return listed.service if listed else service_of(tag)

    @staticmethod
    def schemas(tag: str) -> dict[str, dict[str, Any]] | None:
        """The JSON schemas of a version's routes, by path; None if it has none. Raises SetupError."""
        return schemas_of(tag) if tag in bento_tags() else None

    def _listed(self) -> dict[str, Listed]:
        if self._path is None:
            return {}
        listed = read_listed(self._path)
        if both := sorted(listed.keys() & set(bento_tags())):
            raise SetupError(
                f"{both[0]} is the tag of two versions",
                saw=f"a Bento, and an entry of {self._path}",
                do="give the entry another tag: a tag always means the same version",
            )
        return listed
