"""Podman with its own store: no image of this machine is replaced, and none is left behind."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from kanaria.stack.ports import free_port
from tests.support.waiting import eventually

START_WITHIN_S = 60.0
# Low enough for any host: podman's defaults are higher than a sandbox without CAP_SYS_RESOURCE may set.
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
    def run(self, image: str, *options: str) -> Iterator["Container"]:
        """Run a server with the options of docs/container.md until the block ends; it is ready when that begins."""
        port = free_port()
        container = Container(self, self("run", "--detach", *HARDENED, *_listening_on(port), *options, image), port)
        try:
            eventually(container.is_ready, within_s=START_WITHIN_S)
            yield container
        finally:
            self("rm", "--force", "--time", "0", container.name)


HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108 - the container's own


def _listening_on(port: int) -> tuple[str, ...]:
    """The host's network, because a published port needs rights that a sandbox may lack."""
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
            return httpx.get(f"{self.url}/readyz").is_success
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
