"""Decides what each process cannot reach on this machine: the `Sandbox` of a version and of the observer."""

import os
import site
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import cache_from_source, find_spec
from pathlib import Path

from kanaria.settings import SECRET_FOLDERS, Settings
from kanaria.stack import sandbox
from kanaria.stack.bentos import bento_folder, keeps_contract, store
from kanaria.stack.confinement import refused
from kanaria.stack.sandbox import Sandbox
from rollout.routers.envoy.settings import GatewaySettings

_IMPORTED = ("_bentoml_impl", "torch", "uvicorn")
_OWN_PACKAGES = ("contract", "kanaria", "loadtest", "monitoring", "observer", "rollout", "service")


def sandbox_of(
    settings: Settings, tag: str, own: Sequence[Path] = (), *, records: Path | None = None
) -> Sandbox | None:
    """The sandbox of one process of a Bento; None if sandboxes are off.

    Args:
        own: folders that only this process uses.
        records: folder in which versions of the model contract record answers; None: outside all hidden folders.
    """
    if settings.sandbox == "off":
        return None
    written = list(own)
    if records is not None and keeps_contract(tag):
        written += [records / "answers", records / "predictions"]
    for folder in written:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_folders(settings)
    return Sandbox(
        hidden=_texts(_hidden(settings)),
        kept=_texts([*written, bento_folder(tag), store()]),  # BentoML writes there; the store may be next to code
        fixed=_texts(_fixed(settings)),
        is_required=settings.sandbox == "required",
    )


def sandbox_of_the_observer(settings: Settings, gateway: GatewaySettings) -> Sandbox | None:
    """The sandbox of the observer, which writes in folders that versions of the contract write to; None: sandboxes off.

    Versions can leave links there, and journals that make SQLite remove a file. So the observer sees little more than
    a version does.
    """
    if settings.sandbox == "off":
        return None
    written = [settings.answers, settings.predictions, settings.recorded, gateway.admin_folder.resolve()]
    for folder in written:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Sandbox(
        hidden=_texts(_hidden(settings)),
        kept=_texts(written),
        fixed=_texts([*_fixed(settings), gateway.directory]),
        is_required=settings.sandbox == "required",
    )


def with_copies(given: Sandbox, tag: str, home: Path) -> Sandbox:
    """`given` for a version that runs from the verified copies in `home`, which no process may change."""
    kept = tuple(path for path in given.kept if path != str(bento_folder(tag).absolute()))
    return replace(given, kept=kept, fixed=(*given.fixed, *_texts([home / "bentos", home / "models"])))


def with_environment(given: Sandbox, environment: Path) -> Sandbox:
    """`given` for a version with its own packages in `environment`."""
    return replace(given, fixed=(*given.fixed, *_texts([environment])))


def while_installing(given: Sandbox, environment: Path) -> Sandbox:
    """The sandbox of the installer of packages into `environment`: building a package runs its code."""
    return replace(given, kept=(*given.kept, *_texts([environment])))


def check(settings: Settings, say: Callable[[str], None]) -> None:
    """Refuse a machine without the required sandbox, and print what versions can reach. Raises SetupError."""
    if settings.sandbox == "off":
        return
    reason = sandbox.lacking()
    if reason and settings.sandbox == "required":
        raise refused(reason)
    if reason:
        say(f"versions run without a sandbox, so they can read the state folder: {reason}")
        return
    if missing := [str(path) for path in settings.hide if not _is_made(path)]:
        say(f"missing folders to hide, which versions can create and read: {', '.join(missing)}")
    if sandbox.is_partial():
        say("versions can send signals to your other processes: only Linux 6.12 and later prevents that")
    _compile()


def _compile() -> None:
    """Compile the packages that versions import. Versions cannot save compiled files and would start seconds later.

    pip compiles what it installs, uv does not.
    """
    found = [spec.origin for name in _IMPORTED if (spec := find_spec(name)) and spec.origin]
    if any(not Path(cache_from_source(file)).exists() for file in found):
        words = [sys.executable, "-P", "-c", f"import {', '.join(_IMPORTED)}, _bentoml_impl.server.app"]
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _is_made(path: Path) -> bool:
    """Whether the path exists, or is created when a version starts."""
    return path in SECRET_FOLDERS or path.expanduser().exists()


def _make_folders(settings: Settings) -> None:
    """Create the folders that programs read unasked. A version could otherwise create and fill them."""
    for path in settings.hide:
        if path in SECRET_FOLDERS:
            with suppress(OSError):  # no home folder, or one that versions cannot write to either
                path.expanduser().mkdir(mode=0o700, exist_ok=True)
    for path in _looked_into_by_python():
        with suppress(OSError):  # as above
            path.mkdir(parents=True, exist_ok=True)


def _hidden(settings: Settings) -> list[Path]:
    """The state folder, the secrets, and the sockets of other processes of this user."""
    files = (settings.tls_key, settings.controller_tls_key, settings.notify, settings.receivers, settings.versions)
    return [
        settings.root,
        (settings.root / "gateway" / "admin").resolve(),  # a short path elsewhere if the state folder's is long
        Path("/run/user"),  # systemd starts programs on request there; the user's folder may appear only at login
        *(path.expanduser() for path in settings.hide),
        *filter(None, files),
    ]


def _fixed(settings: Settings) -> list[Path]:
    """Code that runs outside a sandbox or in another version, and the files that Kanaria trusts."""
    code = [
        *map(Path, (sys.executable, sys.prefix, sys.base_prefix)),
        *map(Path, filter(None, sys.path)),
        *_own_packages(),
        *_looked_into_by_python(),
    ]
    home = Path.home()
    return [
        *(path for path in dict.fromkeys(code) if os.access(path, os.W_OK) and not home.is_relative_to(path)),
        *(store() / kind for kind in ("bentos", "models")),
        settings.own_public_key,
        *filter(None, (settings.public_key, settings.rules)),
    ]


def _looked_into_by_python() -> list[Path]:
    """Folders from which Python loads code, in Kanaria's own processes too; usually none exists."""
    packages = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    compiled = [sys.pycache_prefix] if sys.pycache_prefix else []
    return [Path(path) for path in (*packages, *compiled)]


def _own_packages() -> list[Path]:
    found = [spec for name in _OWN_PACKAGES if (spec := find_spec(name))]
    return [Path(folder) for spec in found for folder in spec.submodule_search_locations or ()]


def _texts(paths: Sequence[Path]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(path.absolute()) for path in paths))
