"""The controller has the ledger copied: by a process of its own, at intervals, and a failure ends nothing."""

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
    """Those of a controller whose schedule copies this ledger all the time."""
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
    """The metric says when; without news there is one copy."""
    began_s = time.time()
    until(lambda: value(metrics, m.LEDGER_COPIED) >= began_s - 1, "a copy was made")
    (copy,) = places.copies(ledger)
    assert check(copy).releases == 5
    assert value(metrics, m.LEDGER_COPY_FAILURES) == 0


def test_a_copy_that_fails_is_counted_and_tried_again(ledger: Path, metrics: ControllerMetrics) -> None:
    """Nothing ends; the next copy succeeds once its cause is gone."""
    good = ledger.read_bytes()
    garbage(ledger)
    until(lambda: value(metrics, m.LEDGER_COPY_FAILURES) >= 2, "two copies failed")
    ledger.write_bytes(good)
    began_s = time.time()
    until(lambda: value(metrics, m.LEDGER_COPIED) >= began_s, "a copy was made")
    until(lambda: value(metrics, m.LEDGER_COPY_FAILURES) == 0, "they are counted anew")


def test_a_schedule_that_is_switched_off_copies_nothing(ledger: Path) -> None:
    """KANARIA_LEDGER_BACKUP_EVERY_S=0."""
    schedule = BackupSchedule(ControllerMetrics(), every_s=0)
    schedule.start()
    schedule.join(timeout=LIMIT_S)
    assert not schedule.is_alive()
    assert places.copies(ledger) == []
