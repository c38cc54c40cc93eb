"""A separate process copies the ledger at intervals, and a failed copy stops nothing."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract import metrics as m
from kanaria.stack.backup_schedule import BackupSchedule
from rollout.control.metrics import ControllerMetrics
from rollout.ledger import places
from rollout.ledger.check import check
from tests.support.unreadable_ledgers import garbage, whole

LIMIT_S = 60.0


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    whole(tmp_path / "ledger.db")
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path))
    return tmp_path / "ledger.db"


@pytest.fixture
def metrics(ledger: Path) -> Iterator[ControllerMetrics]:
    """The metrics of a controller whose schedule copies this ledger continuously."""
    made = ControllerMetrics()
    schedule = BackupSchedule(made, every_s=0.05)
    schedule.start()
    yield made
    schedule.stop()
    assert not schedule.is_alive()


def value(metrics: ControllerMetrics, metric: m.Metric) -> float:
    return metrics.registry.get_sample_value(metric.name) or 0.0


def until(holds: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {LIMIT_S:.0f} s: {what}"
        time.sleep(0.05)


def test_the_ledger_is_copied_on_a_schedule(ledger: Path, metrics: ControllerMetrics) -> None:
    """A metric gives the time of the copy; without new events there is only one copy."""
    began_s = time.time()
    until(lambda: value(metrics, m.LEDGER_COPIED) >= began_s - 1, "a copy was made")
    (copy,) = places.copies(ledger)
    assert check(copy).releases == 5
    assert value(metrics, m.LEDGER_COPY_FAILURES) == 0


def test_a_failed_copy_is_counted_and_retried(ledger: Path, metrics: ControllerMetrics) -> None:
    """Nothing stops, and the next copy succeeds once the cause is gone."""
    good = ledger.read_bytes()
    garbage(ledger)
    until(lambda: value(metrics, m.LEDGER_COPY_FAILURES) >= 2, "two copies failed")
    ledger.write_bytes(good)
    began_s = time.time()
    until(lambda: value(metrics, m.LEDGER_COPIED) >= began_s, "a copy was made")
    until(lambda: value(metrics, m.LEDGER_COPY_FAILURES) == 0, "the count of failures starts again")


def test_a_disabled_schedule_copies_nothing(ledger: Path) -> None:
    """`KANARIA_LEDGER_BACKUP_EVERY_S=0` disables it."""
    schedule = BackupSchedule(ControllerMetrics(), every_s=0)
    schedule.start()
    schedule.join(timeout=LIMIT_S)
    assert not schedule.is_alive()
    assert places.copies(ledger) == []
