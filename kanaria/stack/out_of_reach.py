"""What a version's process does not reach on this machine: a `Sandbox` for each."""

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
    """The sandbox of one process of a Bento; None where there is to be none.

    Args:
        own: folders of this process alone.
        records: where versions of the model contract keep what was answered; None: in none of the hidden folders.
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
        kept=_texts([*written, bento_folder(tag), store()]),  # BentoML writes there; it may lie beside code
        fixed=_texts(_fixed(settings)),
        is_required=settings.sandbox == "required",
    )


def sandbox_of_the_observer(settings: Settings, gateway: GatewaySettings) -> Sandbox | None:
    """The sandbox of a process of Kanaria's own that writes where versions of the contract can; None: there is none.

    They can leave links there, and journals by which SQLite removes a file, so it sees little more than they do.
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
    """The same for a version that runs from the verified copies in `home`, which nobody changes any more."""
    kept = tuple(path for path in given.kept if path != str(bento_folder(tag).absolute()))
    return replace(given, kept=kept, fixed=(*given.fixed, *_texts([home / "bentos", home / "models"])))


def with_environment(given: Sandbox, environment: Path) -> Sandbox:
    """The same with packages of its own."""
    return replace(given, fixed=(*given.fixed, *_texts([environment])))


def while_installing(given: Sandbox, environment: Path) -> Sandbox:
    """The sandbox of what installs packages into `environment`: to build one is to run its code."""
    return replace(given, kept=(*given.kept, *_texts([environment])))


def check(settings: Settings, say: Callable[[str], None]) -> None:
    """Refuse a machine that lacks the sandbox that is required, and say what versions can reach. Raises SetupError."""
    if settings.sandbox == "off":
        return
    reason = sandbox.lacking()
    if reason and settings.sandbox == "required":
        raise refused(reason)
    if reason:
        say(f"versions run in no sandbox, so they can read the state folder: {reason}")
        return
    if missing := [str(path) for path in settings.hide if not _is_made(path)]:
        say(f"not there, so versions can make it, and see what you put there: {', '.join(missing)}")
    if sandbox.is_partial():
        say("versions can send signals to other processes of yours: only Linux 6.12 and later forbids that")
    _compile()


def _compile() -> None:
    """Let Python keep what it compiles of the packages that versions import: they cannot, and would take seconds more.

    pip has done so already, uv has not.
    """
    found = [spec.origin for name in _IMPORTED if (spec := find_spec(name)) and spec.origin]
    if any(not Path(cache_from_source(file)).exists() for file in found):
        words = [sys.executable, "-P", "-c", f"import {', '.join(_IMPORTED)}, _bentoml_impl.server.app"]
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _is_made(path: Path) -> bool:
    """Whether it is there, or is made when a version starts."""
    return path in SECRET_FOLDERS or path.expanduser().exists()


def _make_folders(settings: Settings) -> None:
    """Make what programs look into by themselves, for a version would make it where it is not there."""
    for path in settings.hide:
        if path in SECRET_FOLDERS:
            with suppress(OSError):  # of a home folder that is not there, or that no version can write to, either
                path.expanduser().mkdir(mode=0o700, exist_ok=True)
    for path in _looked_into_by_python():
        with suppress(OSError):  # as above
            path.mkdir(parents=True, exist_ok=True)


def _hidden(settings: Settings) -> list[Path]:
    """The state, secrets wherever they lie, and the ways to other processes of this user."""
    files = (settings.tls_key, settings.controller_tls_key, settings.notify, settings.receivers, settings.versions)
    return [
        settings.root,
        (settings.root / "gateway" / "admin").resolve(),  # a short path elsewhere, where the state folder's is long
        Path("/run/user"),  # systemd starts what it is asked to there, also where it begins only when its user logs in
        *(path.expanduser() for path in settings.hide),
        *filter(None, files),
    ]


def _fixed(settings: Settings) -> list[Path]:
    """Code that runs outside of any sandbox, or as another version, and what Kanaria acts by."""
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
    """Where it takes code from that somebody puts there, for processes of Kanaria's own, too; none in most set-ups."""
    packages = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    compiled = [sys.pycache_prefix] if sys.pycache_prefix else []
    return [Path(path) for path in (*packages, *compiled)]


def _own_packages() -> list[Path]:
    found = [spec for name in _OWN_PACKAGES if (spec := find_spec(name))]
    return [Path(folder) for spec in found for folder in spec.submodule_search_locations or ()]


def _texts(paths: Sequence[Path]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(path.absolute()) for path in paths))
