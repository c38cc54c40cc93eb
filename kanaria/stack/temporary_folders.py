"""Temporary folders of commands. Those of a killed command are removed, those of a running one are not."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kanaria.settings import Settings
from kanaria.stack.identity import Identity

_MAKER = re.compile(r"(\d+)-(\d+\.\d+)-")  # the pid and start time of its process, at the beginning of a name


@contextmanager
def temporary_folder(settings: Settings) -> Iterator[Path]:
    """A folder that exists while the block runs."""
    own = Identity.of(os.getpid())
    prefix = f"{own.pid}-{own.started_s:.2f}-" if own else None
    with TemporaryDirectory(dir=settings.temporary, prefix=prefix) as name:
        yield Path(name)


def remove_left_over(settings: Settings) -> None:
    """Remove every entry whose process has ended."""
    for entry in settings.temporary.iterdir():
        if _is_in_use(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _is_in_use(name: str) -> bool:
    maker = _MAKER.match(name)
    try:
        return maker is not None and Identity(int(maker[1]), float(maker[2])).is_alive
    except OSError:  # unknown: keep it
        return True
