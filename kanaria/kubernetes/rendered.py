"""Manifests as YAML: one text, or a folder that `kubectl apply -k` takes."""

from pathlib import Path

import yaml

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
    """The text of each file by its name, with a kustomization that lists them."""
    head = f"{_OURS} {wanted.tag} --engine {wanted.engine}`. Change it with a patch of kustomize, or write it anew.\n"
    made = {f"{name}.yaml": head + "".join(map(_document, documents)) for name, documents in _manifests(wanted).items()}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(made),
    }
    return made | {_KUSTOMIZATION: head + _document(kustomization)}


def write(wanted: Wanted, folder: Path) -> dict[Path, bool]:
    """Write `files` to a folder.

    Returns: whether each was new or changed.
    Raises: SetupError for a file that is somebody else's; then none is written.
    """
    wanted_files = {folder / name: content for name, content in files(wanted).items()}
    known = {path: path.read_text() for path in wanted_files if path.exists()}
    if foreign := [str(path) for path, content in known.items() if not content.startswith(_OURS)]:
        raise SetupError(
            "a file there was not written by this command",
            saw=", ".join(foreign),
            do="name another folder after --out, or move that file away",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in wanted_files.items():
        if known.get(path) != content:
            path.touch(mode=0o600 if wanted.token else 0o644)
            path.write_text(content)
    return {path: known.get(path) != content for path, content in wanted_files.items()}


def _manifests(wanted: Wanted) -> dict[str, list[Manifest]]:
    return argo.manifests(wanted) if wanted.engine is Engine.ARGO else flagger.manifests(wanted)


def _document(manifest: Manifest) -> str:
    dumped: str = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=1000)
    return f"---\n{dumped}"


class _Dumper(yaml.SafeDumper):
    """Writes equal parts out each time: kustomize would patch all of them through an alias."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - of any part
        return True
