"""Which annotations Grafana receives about releases, and that no release waits for Grafana."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from kanaria.stack.annotations import Annotator, release_annotations
from monitoring.grafana.push import Annotation, Grafana
from rollout.control import commands as c
from tests.support.grafana import ADMIN, FakeGrafana, running
from tests.support.releases import SPEC, digits_world, finished

CONTROLLER = "http://127.0.0.1:8090"


@pytest.fixture
def fake() -> Iterator[FakeGrafana]:
    with running(FakeGrafana()) as grafana:
        yield grafana


def until(holds: Callable[[], bool], *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.01)


def test_every_decision_of_a_release_is_an_annotation(tmp_path: Path) -> None:
    """Every decision from the request to the end has the release, its kind and a link to the report."""
    release = finished(tmp_path / "ledger.db")
    annotations = list(release_annotations(tmp_path / "ledger.db", CONTROLLER))
    assert [annotation.at_s for annotation in annotations] == [decision.at_s for decision in release.decisions]
    assert len({annotation.key for annotation in annotations}) == len(annotations)
    assert all(annotation.tags[0] == "release:1" for annotation in annotations)
    assert all(f"{CONTROLLER}/releases/1" in annotation.text for annotation in annotations)
    assert [annotation.tags[1] for annotation in annotations].count("promoted") == 1


def test_text_written_by_a_person_cannot_become_markup(tmp_path: Path) -> None:
    """Grafana renders annotations as HTML."""
    world, controller = digits_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
    world.live(controller, 5)
    controller.execute(c.Abort("ann", "<img src=x>"))
    controller.close()
    annotations = [annotation.text for annotation in release_annotations(tmp_path / "ledger.db", CONTROLLER)]
    assert any("&lt;img src=x&gt;" in text for text in annotations)
    assert not any("<img" in text for text in annotations)


def test_the_annotator_sends_each_decision_once(tmp_path: Path, fake: FakeGrafana) -> None:
    """This holds also after a restart, such as that of a killed controller."""
    path = tmp_path / "ledger.db"
    wanted = len(finished(path).decisions)
    for _ in range(2):
        looks = threading.Semaphore(0)

        def annotations(since: int, looks: threading.Semaphore = looks) -> Iterable[Annotation]:
            looks.release()
            return release_annotations(path, CONTROLLER, since=since)

        annotator = Annotator(lambda: Grafana(fake.url, ADMIN), annotations, every_s=0.01)
        annotator.start()
        for _ in range(3):
            assert looks.acquire(timeout=60)
        annotator.stop()
        annotator.join()
    assert len(fake.annotations) == wanted


def test_a_grafana_that_was_away_receives_what_it_missed(tmp_path: Path, fake: FakeGrafana) -> None:
    """The annotator retries until Grafana accepts the annotations; nothing is lost."""
    path = tmp_path / "ledger.db"
    wanted = len(finished(path).decisions)
    tokens = iter(["wrong", "wrong", ADMIN])
    annotator = Annotator(
        lambda: Grafana(fake.url, next(tokens, ADMIN)),
        lambda since: release_annotations(path, CONTROLLER, since=since),
        every_s=0.01,
    )
    annotator.start()
    until(lambda: len(fake.annotations) == wanted)
    annotator.stop()
    annotator.join()


def test_no_release_waits_for_a_grafana_that_hangs(tmp_path: Path) -> None:
    """Grafana accepts connections and never answers. The release still ends as usual, and so does the process."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        asked = threading.Event()

        def annotations(since: int) -> Iterable[Annotation]:
            annotations = list(release_annotations(path, CONTROLLER, since=since))
            if annotations:
                asked.set()
            return annotations

        annotator = Annotator(lambda: Grafana(url, ADMIN, timeout_s=60.0), annotations, every_s=0.01)
        annotator.start()
        controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
        assert asked.wait(60), "the annotator now waits for an answer"
        world.live_until_ended(controller)
        release = controller.snapshot.deployment.release
        assert release is not None
        assert (release.outcome, annotator.is_alive(), annotator.daemon) == ("promoted", True, True)
        annotator.stop()
    controller.close()
    annotator.join(60)
