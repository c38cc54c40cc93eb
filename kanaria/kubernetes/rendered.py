"""Manifests as YAML: one text, or a folder for `kubectl apply -k`."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from contract.files import write_whole
from kanaria.errors import SetupError
from kanaria.kubernetes import argo, flagger
from kanaria.kubernetes.parts import Manifest
from kanaria.kubernetes.wanted import Engine, Wanted

_OURS = "# Written by `kanaria kubernetes render"
_KUSTOMIZATION = "kustomization.yaml"


def text(wanted: Wanted) -> str:
    """All manifests as one text."""
    return "".join(_document(each) for documents in _manifests(wanted).values() for each in documents)


def files(wanted: Wanted) -> dict[str, str]:
    """The text of each file by name, with a kustomization that lists them."""
    head = f"{_OURS} {wanted.tag} --engine {wanted.engine}`. Change it with a kustomize patch, or render it again.\n"
    made = {f"{name}.yaml": head + "".join(map(_document, documents)) for name, documents in _manifests(wanted).items()}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(made),
    }
    return made | {_KUSTOMIZATION: head + _document(kustomization)}


def write(wanted: Wanted, folder: Path) -> dict[Path, bool]:
    """Write `files` to a folder. Only the owner can read files with the token, and Git ignores them.

    Returns: whether each was new or changed.
    Raises: SetupError if a file there is foreign or of another engine; then none is written.
    """
    contents = {folder / name: content for name, content in files(wanted).items()}
    secret = {folder / name for name in secrets(wanted)}
    ignoring = folder / ".gitignore"
    if secret and (not ignoring.exists() or _is_ours(ignoring)):
        ignored = "".join(f"/{path.name}\n" for path in sorted(secret))
        contents[ignoring] = f"{_OURS} --token-file`: these have the judge's token.\n{ignored}"
    _check(folder, contents)
    folder.mkdir(parents=True, exist_ok=True)
    changed = {path: not _is_written(path, content, path in secret) for path, content in contents.items()}
    for path, is_changed in changed.items():
        if is_changed:
            write_whole(path, contents[path], mode=0o600 if path in secret else 0o666)
    return changed


def secrets(wanted: Wanted) -> tuple[str, ...]:
    """The files that contain the token."""
    return ("canary.yaml",) if wanted.engine is Engine.FLAGGER and wanted.token else ()


def _check(folder: Path, contents: Mapping[Path, str]) -> None:
    foreign = [str(path) for path in contents if path.exists() and not _is_ours(path)]
    if foreign:
        raise SetupError(
            "a file in the folder was not written by this command",
            saw=", ".join(foreign),
            do="name another folder after --out, or move that file away",
        )
    left = [str(path) for path in sorted(folder.glob("*.yaml")) if path not in contents and _is_ours(path)]
    if left:
        raise SetupError(
            "the folder has manifests of another engine, which may contain a token",
            saw=", ".join(left),
            do="name another folder after --out, or remove these",
        )


def _is_ours(path: Path) -> bool:
    return path.is_file() and path.read_text(errors="replace").startswith(_OURS)


def _is_written(path: Path, content: str, is_secret: bool) -> bool:
    if not path.exists() or path.read_text() != content:
        return False
    return not is_secret or path.stat().st_mode & 0o077 == 0


def _manifests(wanted: Wanted) -> dict[str, list[Manifest]]:
    return argo.manifests(wanted) if wanted.engine is Engine.ARGO else flagger.manifests(wanted)


def _document(manifest: Manifest) -> str:
    dumped: str = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=1000)
    return f"---\n{dumped}"


class _Dumper(yaml.SafeDumper):
    """Writes no aliases: kustomize would patch all uses of one."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - of any part
        return True
