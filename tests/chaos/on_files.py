"""Faults of disks and files. Each is a context manager: the fault happens on entry and is undone on exit."""

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
    """The state folder's disk is full."""
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
    """No more files can be created in the state folder."""
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
    """All writes to the state folder block."""
    subprocess.run(["fsfreeze", "--freeze", str(site.home)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(site.home)], check=True)


@contextmanager
def disk_read_only(site: Site) -> Iterator[None]:
    """The kernel has found an error on the disk and refuses writes; then a person repairs it and reboots."""
    subprocess.run(["mount", "-o", "remount,abort", str(site.home)], check=True)
    yield
    site.command("status", label="status while nothing can be written")
    kill_all(site)
    site.repair()
    site.command("up")


@contextmanager
def temporary_full(site: Site) -> Iterator[None]:
    """The disk for temporary files is full."""
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
    """A person or a clean-up program removes all temporary files."""
    for entry in site.temporary.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    yield


@contextmanager
def state_moved(site: Site) -> Iterator[None]:
    """The state folder is renamed, and gets its name back."""
    other = site.home.with_name("elsewhere")
    site.home.rename(other)
    try:
        yield
    finally:
        if site.home.exists():  # the ledger and the versions' answers were written to the old path again
            site.home.rename(site.home.with_name("written-meanwhile"))
        other.rename(site.home)


@contextmanager
def metrics_deleted(site: Site) -> Iterator[None]:
    """Prometheus's stored data is deleted, and Prometheus has to restart."""
    shutil.rmtree(site.home / "prometheus" / "data")
    kill(site.tree("prometheus"))
    yield


@contextmanager
def metrics_damaged(site: Site) -> Iterator[None]:
    """Parts of Prometheus's write-ahead log are overwritten, and Prometheus has to restart."""
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
    """The controller has to recover without writing."""
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
    """The ledger's first pages are overwritten, and the controller has to read it again; a person puts a copy back."""
    with _copied(site):
        with (site.home / "ledger.db").open("r+b") as file:
            file.write(b"noise" * 1000)
        kill(site.tree("controller"))
        yield


@contextmanager
def ledger_deleted(site: Site) -> Iterator[None]:
    """The ledger's files are deleted, and the controller has to read them again; a person puts a copy back."""
    with _copied(site):
        for path in site.home.glob("ledger.db*"):
            path.unlink()
        kill(site.tree("controller"))
        yield


@contextmanager
def routes_cut(site: Site) -> Iterator[None]:
    """The routes file with which the gateway starts is cut in half, as after a crash of the machine."""
    path = site.home / "gateway" / "routes.json"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    kill(site.tree("gateway"))
    yield


@contextmanager
def versions_emptied(site: Site) -> Iterator[None]:
    """The files that say where versions listen are empty, and the controller has to read them again."""
    for path in site.home.glob("versions/*.json"):
        path.write_bytes(b"")
    kill(site.tree("controller"))
    yield


@contextmanager
def _copied(site: Site) -> Iterator[None]:
    """Copies the ledger before the block, and puts the copy back after it."""
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
    with suppress(Exception):  # the controller may be waiting for a valid ledger; the keeper restarts it in any case
        kill(site.tree("controller"))


def no_mount() -> str:
    return "" if os.geteuid() == 0 and shutil.which("mount") else "mounting a small file system requires root"


def no_image() -> str:
    has_tools = shutil.which("mkfs.ext4") and shutil.which("fsfreeze") and Path("/dev/loop-control").exists()
    return no_mount() or ("" if has_tools else "a disk in a file requires mkfs.ext4, fsfreeze and a loop device")
