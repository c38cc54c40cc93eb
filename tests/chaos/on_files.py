"""What happens to disks and files of a stack. Entered, each strikes; left, it is undone."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.chaos.on_processes import kill, kill_all
from tests.chaos.site import Site


@contextmanager
def disk_full(site: Site) -> Iterator[None]:
    """Not one byte is free where the state lies."""
    filler = site.home / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def no_inodes(site: Site) -> Iterator[None]:
    """Not one file more can be made where the state lies."""
    folder = site.home / "filler"
    folder.mkdir()
    with suppress(OSError):
        for number in range(100_000):
            (folder / str(number)).touch()
    try:
        yield
    finally:
        shutil.rmtree(folder)


@contextmanager
def disk_hangs(site: Site) -> Iterator[None]:
    """Whoever writes to the state folder waits."""
    subprocess.run(["fsfreeze", "--freeze", str(site.home)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(site.home)], check=True)


@contextmanager
def disk_read_only(site: Site) -> Iterator[None]:
    """As the kernel leaves a disk on which it found a fault; then a person repairs it and starts the machine again."""
    subprocess.run(["mount", "-o", "remount,abort", str(site.home)], check=True)
    yield
    site.command("status", label="status while nothing can be written")
    kill_all(site)
    site.repair()
    site.command("up")


@contextmanager
def temporary_full(site: Site) -> Iterator[None]:
    """Not one byte is free for temporary files."""
    filler = site.temporary / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def temporary_emptied(site: Site) -> Iterator[None]:
    """A person, or a program that cleans up, removes all temporary files."""
    for entry in site.temporary.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    yield


@contextmanager
def state_moved(site: Site) -> Iterator[None]:
    """Somebody gives the state folder another name, and takes it back."""
    other = site.home.with_name("elsewhere")
    site.home.rename(other)
    try:
        yield
    finally:
        if site.home.exists():  # the ledger is put back where it was, and versions write their answers
            site.home.rename(site.home.with_name("anew"))
        other.rename(site.home)


@contextmanager
def metrics_deleted(site: Site) -> Iterator[None]:
    """All that Prometheus has stored is gone, and it has to start again."""
    shutil.rmtree(site.home / "prometheus" / "data")
    kill(site.tree("prometheus"))
    yield


@contextmanager
def metrics_damaged(site: Site) -> Iterator[None]:
    """Noise in the log of what Prometheus read last, and it has to start again."""
    programs = site.tree("prometheus")
    for process in programs:
        process.suspend()
    for path in (site.home / "prometheus" / "data" / "wal").glob("0*"):
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 3)
            file.write(os.urandom(2000))
    kill(programs)
    yield


@contextmanager
def disk_full_and_controller_killed(site: Site) -> Iterator[None]:
    """It has to recover without writing."""
    with disk_full(site):
        site.wait(1.0)
        kill(site.tree("controller"))
        yield


@contextmanager
def ledger_locked(site: Site) -> Iterator[None]:
    """Another program holds SQLite's lock for writers."""
    other = sqlite3.connect(site.home / "ledger.db", isolation_level=None, timeout=30)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


@contextmanager
def ledger_damaged(site: Site) -> Iterator[None]:
    """Its first pages are noise, and the controller has to read it again; a person puts a copy back."""
    with _copied(site):
        with (site.home / "ledger.db").open("r+b") as file:
            file.write(b"noise" * 1000)
        kill(site.tree("controller"))
        yield


@contextmanager
def ledger_deleted(site: Site) -> Iterator[None]:
    """Its files are gone, and the controller has to read them again; a person puts a copy back."""
    with _copied(site):
        for path in site.home.glob("ledger.db*"):
            path.unlink()
        kill(site.tree("controller"))
        yield


@contextmanager
def routes_cut(site: Site) -> Iterator[None]:
    """Half of the file that the gateway starts with, as a crash of the machine leaves it."""
    path = site.home / "gateway" / "routes.json"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    kill(site.tree("gateway"))
    yield


@contextmanager
def versions_emptied(site: Site) -> Iterator[None]:
    """The files that say where versions listen hold nothing, and the controller has to read them again."""
    for path in site.home.glob("versions/*.json"):
        path.write_bytes(b"")
    kill(site.tree("controller"))
    yield


@contextmanager
def _copied(site: Site) -> Iterator[None]:
    """A copy of the ledger is made before, and put back in the end."""
    ledger, copy = site.home / "ledger.db", site.folder / "copy.db"
    source, target = sqlite3.connect(ledger), sqlite3.connect(copy)
    source.backup(target)
    source.close()
    target.close()
    yield
    for path in site.home.glob("ledger.db-*"):
        path.unlink()
    shutil.copy(copy, site.home / "ledger.db.new")
    (site.home / "ledger.db.new").replace(ledger)
    with suppress(Exception):  # where it waits for a good ledger, it is started again all the same
        kill(site.tree("controller"))


def no_mount() -> str:
    return "" if os.geteuid() == 0 and shutil.which("mount") else "a small file system takes root to mount"


def no_image() -> str:
    has_tools = shutil.which("mkfs.ext4") and shutil.which("fsfreeze") and Path("/dev/loop-control").exists()
    return no_mount() or ("" if has_tools else "a disk in a file takes mkfs.ext4, fsfreeze and a loop device")
