"""A machine without anything installed manually: Debian in a folder, entered by chroot."""

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.paths import ROOT

PACKAGES = ("python3", "python3-venv", "make", "curl", "ca-certificates")  # what the README requires and types
PROJECT = "/project"
LAST = ("nice", "-n", "10")  # an installation of several minutes must not delay what other tests measure
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# Mounts are in a mount namespace of the command and disappear with it, however it ends.
_ENTER = 'mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" sh -c "cd $1; $2"'


class FreshMachine:
    """Debian `suite` in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", **_package_index(), **_proxies()}

    @classmethod
    @contextmanager
    def made(cls, folder: Path, suite: str) -> Iterator["FreshMachine"]:
        """A new machine that is removed at the end, because it takes a gigabyte."""
        packages = f"--include={','.join(PACKAGES)}"
        subprocess.run([*LAST, "mmdebstrap", "--variant=minbase", packages, suite, folder, *_mirror()], check=True)
        try:
            machine = cls(folder)
            machine.connect()
            yield machine
        finally:
            subprocess.run(["rm", "-r", "--force", "--one-file-system", folder], check=True)

    def connect(self) -> None:
        """Copy what the network of this machine needs: host names and certificates."""
        for name in ("etc/resolv.conf", "etc/hosts"):
            shutil.copy(Path("/", name), self._folder / name)
        trusted = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
        if trusted:
            shutil.copy(trusted, self._folder / _BUNDLE)

    def bring_project(self) -> None:
        """Copy the files that a clone has."""
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            copy = self._folder / PROJECT.strip("/") / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a line of shell in the project's folder."""
        return subprocess.run(
            [*LAST, "unshare", "--mount", "sh", "-c", _ENTER, self._folder, PROJECT, script],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )


def _mirror() -> list[str]:
    """The Debian mirror that this machine is configured with; mmdebstrap has a default one."""
    if shutil.which("apt-get") is None:
        return []
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()[:1]


def _package_index() -> dict[str, str]:
    """The configuration of pip on this machine, without the folders of this machine."""
    lines = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found: dict[str, str] = {"PIP_CERT": f"/{_BUNDLE}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for line in lines.stdout.splitlines():
        key, _, value = line.partition("=")
        words = [word for word in value.strip("'\"").split() if "/" not in word or word.startswith("http")]
        name = key.rpartition(".")[2]
        if name in {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout"} and words:
            found[f"PIP_{name.upper().replace('-', '_')}"] = " ".join(words)
    return found


def _proxies() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name.lower() in {"http_proxy", "https_proxy", "no_proxy"}
    }
