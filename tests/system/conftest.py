"""Real Bentos and a real stack for the system tests, created once for all pytest workers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.bentos import Bentos
from tests.support.containers import make_base
from tests.support.stack import Kanaria

# version -> variant of the example model that it is built from
VERSIONS = {"v1": "v1", "v2": "v2", "v3": "v3", "failing": "v3-errors", "slow": "v3-latency", "broken": "v1"}


@pytest.fixture(scope="session")
def bento_home(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A Bento store with digits v1 (MLP), v2 (better), v3 (silently wrong), a failing, a slow and a broken version."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    made = Bentos(shared / "bentoml")
    is_made = shared / "bentoml.made"
    with FileLock(shared / "bentoml.lock"):
        if not is_made.exists():
            made.train(*sorted(set(VERSIONS.values())))
            for version, variant in VERSIONS.items():
                made.build(version, "--arg", f"model=digits:{variant}")
            is_made.touch()
    return made.home


@pytest.fixture(scope="session")
def base_image(tmp_path_factory: pytest.TempPathFactory, worker_id: str, require_program: Callable[[str], str]) -> Path:
    """An archive of the base image of all others: it takes minutes to build, so it is built once for all workers."""
    for program in ("podman", "mmdebstrap"):
        require_program(program)
    base = tmp_path_factory.getbasetemp()
    archive = (base if worker_id == "master" else base.parent) / "base.tar"
    with FileLock(archive.with_suffix(".lock")):
        if not archive.exists():
            unfinished = archive.with_name("unfinished.tar")
            make_base(unfinished)
            unfinished.rename(archive)
    return archive


@pytest.fixture(scope="session")
def bentos(bento_home: Path) -> Bentos:
    """That store, to serve from."""
    return Bentos(bento_home)


@pytest.fixture(scope="session")
def samples(bento_home: Path) -> Path:
    """Held-out rows with their labels."""
    (path,) = bento_home.glob("models/digits/v1/samples.jsonl")
    return path


@pytest.fixture
def kanaria(tmp_path: Path, bento_home: Path, require_program: Callable[[str], str]) -> Iterator[Kanaria]:
    """An empty state folder; processes started in it are stopped after the test."""
    require_program("envoy")
    made = Kanaria.at(tmp_path, bento_home)
    yield made
    made("down")
