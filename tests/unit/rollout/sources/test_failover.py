"""Counters are read directly while the metric store gives no readings, and the loop does not wait for the store."""

import threading
from collections.abc import Sequence

import pytest

from rollout.errors import SourceUnreachable
from rollout.fleet import Backend
from rollout.signals.counters import Reading
from rollout.signals.custom import OwnCounter
from rollout.sources.failover import FailoverSource
from tests.support.thread_limit import no_more_threads


class Source:
    """Gives the readings that a test sets."""

    def __init__(self, at_s: float) -> None:
        self.at_s: float | None = at_s  # None means that it gives none
        self.has_read = False
        self.trouble: str | None = None
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def read(
        self,
        backends: tuple[Backend, ...],  # noqa: ARG002 - Protocol
        *,
        mirrored: str | None = None,  # noqa: ARG002 - Protocol
        own: Sequence[OwnCounter] = (),  # noqa: ARG002 - Protocol
    ) -> Reading:
        self.asked += 1
        assert self.may_answer.wait(30)
        if self.at_s is None:
            raise SourceUnreachable("the store gives no answer", saw="nothing", do="wait")
        return Reading(self.at_s, {})

    def close(self) -> None: ...


class Rig:
    """A source whose store and clock a test controls."""

    def __init__(self) -> None:
        self.store, self.direct, self.steady_s = Source(100.0), Source(200.0), 0.0
        self.source = FailoverSource(self.store, self.direct, steady_clock=lambda: self.steady_s)

    def at_s(self) -> float:
        return self.source.read(()).at_s

    def until_probed(self) -> None:
        """Wait for the answer to the question in progress."""
        if self.source._probe:
            self.source._probe.exception(30)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_store_without_a_reading_is_replaced_at_once(rig: Rig) -> None:
    """It happens in the same beat, with the reason. The store is used again once its reading is newer than the last."""
    assert (rig.at_s(), rig.source.trouble) == (100.0, None)
    rig.store.at_s = None
    assert rig.at_s() == 200.0
    assert rig.source.trouble == "the store gives no answer; the counters are read directly (nothing)"
    rig.steady_s, rig.store.at_s = 10.0, 201.0
    assert rig.at_s() == 200.0
    rig.until_probed()
    assert (rig.at_s(), rig.source.trouble) == (201.0, None)


def test_a_store_that_is_far_behind_the_direct_readings_is_not_used(rig: Rig) -> None:
    """It brings nothing new until it has caught up."""
    rig.at_s()
    rig.store.at_s = None
    rig.at_s()
    rig.store.at_s = 197.0
    for _ in range(4):
        rig.steady_s += 10.0
        assert rig.at_s() == 200.0
        rig.until_probed()


def test_a_store_whose_scrapes_are_always_older_than_a_beat_is_used_again(rig: Rig) -> None:
    """Each beat first reads directly, so nothing from the store was ever newer."""
    rig.at_s()
    rig.store.at_s = None
    rig.at_s()
    seen = []
    for beat in range(20):
        rig.steady_s, rig.direct.at_s, rig.store.at_s = 10.0 + beat, 200.0 + beat, 200.0 + beat - 1.7
        seen.append(rig.at_s())
        rig.until_probed()
    assert rig.source.trouble is None
    assert seen[-5:] == pytest.approx([200.0 + beat - 1.7 for beat in range(15, 20)])
    newer = [at_s for number, at_s in enumerate(seen) if at_s > max(seen[:number], default=0.0)]
    assert len(newer) >= 16


def test_a_store_that_stopped_scraping_is_replaced_before_its_samples_are_too_old(rig: Rig) -> None:
    """Prometheus does this on a full disk: it answers with old samples. Its next scrape is used again."""
    assert [rig.at_s(), rig.at_s()] == [100.0, 100.0]
    rig.steady_s = 3.1
    assert rig.at_s() == 200.0
    rig.steady_s = 5.0
    assert (rig.at_s(), rig.direct.asked) == (100.0, 1)
    rig.direct.at_s, rig.steady_s = 203.5, 6.5
    assert (rig.at_s(), rig.source.trouble) == (203.5, None)
    rig.store.at_s = 204.0
    assert (rig.at_s(), rig.direct.asked) == (204.0, 2)


def test_a_store_that_hangs_does_not_block_the_loop(rig: Rig) -> None:
    """It is asked now and then in the background, one question at a time."""
    rig.at_s()
    rig.store.at_s = None
    rig.at_s()
    rig.store.may_answer.clear()
    asked = rig.store.asked
    for _ in range(20):
        rig.steady_s += 10.0
        assert rig.at_s() == 200.0
    assert rig.store.asked == asked + 1
    rig.store.may_answer.set()


def test_an_absent_store_is_asked_every_few_seconds(rig: Rig) -> None:
    """It is not asked at every reading."""
    rig.at_s()
    rig.store.at_s = None
    for _ in range(100):
        rig.steady_s += 0.5
        rig.at_s()
        rig.until_probed()
    assert 8 <= rig.store.asked - 2 <= 11


def test_a_store_that_is_starting_is_not_reported(rig: Rig) -> None:
    """Prometheus needs some seconds to find its targets; after half a minute it is reported."""
    rig.store.at_s = None
    assert (rig.at_s(), rig.source.trouble) == (200.0, None)
    rig.steady_s = 31.0
    assert rig.source.trouble


def test_without_store_and_direct_counters_there_is_no_reading(rig: Rig) -> None:
    """Reading raises an error."""
    rig.store.at_s = rig.direct.at_s = None
    with pytest.raises(SourceUnreachable):
        rig.at_s()


def test_a_version_may_be_missing_in_the_first_direct_reading(rig: Rig) -> None:
    """It was in a reading of the store, so its counters are known and its history does not look new."""
    rig.at_s()
    assert rig.direct.has_read


def test_a_store_is_asked_later_if_there_is_no_thread(rig: Rig) -> None:
    """Each reading failed when the system gave no thread; now counters are read directly until it does."""
    rig.store.at_s = None
    assert rig.at_s() == 200.0
    rig.steady_s, rig.store.at_s = 10.0, 300.0
    with no_more_threads():
        assert [rig.at_s(), rig.at_s()] == [200.0, 200.0]
    assert rig.store.asked == 1
    rig.at_s()
    rig.until_probed()
    assert rig.at_s() == 300.0
