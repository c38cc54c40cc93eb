"""Podman with its own store: it replaces no image of this machine and leaves none behind."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from kanaria.stack.ports import free_port
from tests.support.asking import HTTP
from tests.support.paths import ROOT
from tests.support.waiting import eventually

START_WITHIN_S = 180.0
LAST = ("nice", "-n", "19")  # a build of several minutes must not delay what other tests measure
# For a build without access to a package index: the options by their names.
OFFLINE = (
    ("network", "none"),
    ("volume", "{wheels}:/wheels:ro"),
    ("build-arg", "PIP_FIND_LINKS=/wheels"),
    ("build-arg", "PIP_NO_INDEX=1"),
)
# Low enough for any host: podman's defaults exceed what a sandbox without CAP_SYS_RESOURCE may set.
ULIMITS = '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'


class Podman:
    """The `podman` command; `environment` makes other programs use the same store."""

    def __init__(self, folder: Path) -> None:
        storage, containers = folder / "storage.conf", folder / "containers.conf"
        storage.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder / "store"}"\nrunroot = "{folder / "run"}"\n'
        )
        containers.write_text(ULIMITS)
        self.environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_CONF": str(containers),
            "BUILDAH_FORMAT": "docker",  # the OCI format has no health checks
            "BUILDAH_LAYERS": "false",  # nothing is built twice here
            "DISABLE_HC_SYSTEMD": "true",  # the tests run the health check themselves
        }

    def __call__(self, *arguments: str, fails: bool = False) -> str:
        """Run a command and return its output; with `fails`, it must fail, and its errors are returned."""
        done = subprocess.run(["podman", *arguments], env=self.environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) is fails, f"podman {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return (done.stderr if fails else done.stdout).strip()

    def remove_all(self) -> None:
        self("rm", "--all", "--force", "--time", "0")
        self("rmi", "--all", "--force")
        self("volume", "prune", "--force")

    @contextmanager
    def run(self, image: str, *options: str, command: Sequence[str] = ()) -> Iterator["Container"]:
        """Run a server with the options of docs/container.md until the block ends; it is ready when the block starts.

        Args:
            command: runs instead of the image's own command; `{port}` is the port to listen on.
        """
        port = free_port()
        words = [word.replace("{port}", str(port)) for word in command]
        name = self("run", "--detach", *HARDENED, *_listening_on(port), *options, image, *words)
        container = Container(self, name, port)
        try:
            eventually(container.is_ready, within_s=START_WITHIN_S)
            yield container
        finally:
            self("rm", "--force", "--time", "0", container.name)

    def import_base(self, archive: Path) -> None:
        """Import the base image that `make_base` made, under the name in docs/container.md."""
        self("import", str(archive), _BASE)


_BASE = "python:3.11-slim-bookworm"


def make_base(archive: Path) -> None:
    """Make an archive of the base image with the command in docs/container.md for a build without a registry."""
    page = (ROOT / "docs" / "container.md").read_text()
    (line,) = re.findall(r"^mmdebstrap (?:.*\\\n)*.*", page, re.MULTILINE)
    made, is_imported, name = line.rpartition(" - | podman import - ")
    assert (bool(is_imported), name) == (True, _BASE)
    subprocess.run([*LAST, "bash", "-c", f"{made} {archive}"], check=True)


def download_wheels(folder: Path, *requirements: str, options: Iterable[str] = ()) -> None:
    """Download the packages that an image installs, for its Python, from this machine's package index."""
    pip = [*LAST, sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
    pip += ["--find-links", str(folder), "--constraint", str(ROOT / "constraints.txt")]
    pip += ["--only-binary", ":all:", "--python-version", "3.11"]
    subprocess.run([*pip, *options, *requirements], check=True)


HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108 - the container's own


def _listening_on(port: int) -> tuple[str, ...]:
    """Uses the host's network, because a published port needs rights that a sandbox may lack."""
    return ("--network", "host", "--env", "BENTOML_HOST=127.0.0.1", "--env", f"BENTOML_PORT={port}")


@dataclass(frozen=True)
class Container:
    """A running server."""

    podman: Podman
    name: str
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        is_running = self.podman("inspect", "--format", "{{.State.Running}}", self.name) == "true"
        assert is_running, self.logs()
        try:
            return HTTP.get(f"{self.url}/readyz").is_success
        except httpx.TransportError:
            return False

    def sh(self, script: str) -> str:
        """Run a shell script inside, as the server's user."""
        return self.podman("exec", self.name, "sh", "-c", script)

    def logs(self) -> str:
        done = subprocess.run(
            ["podman", "logs", self.name],
            env=self.podman.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        return done.stdout
