"""The calibration history survives its controller in a small file; nothing fails without that file."""

import zlib
from pathlib import Path

import pytest

from rollout.judge import Pair, Window
from rollout.ledger.kept_history import EVERY_S, KeptHistory, StableWindows


def history(path: Path, identity: str | None = "this one") -> KeptHistory:
    return KeptHistory(path / "ledger.db", lambda: identity)


def ticks(count: int, *, signals: int = 1, version: str = "m:v1") -> list[StableWindows]:
    """Windows of 2 s with one failure each."""
    return [
        StableWindows(
            version,
            tuple(
                Window(2.0 * n, 2.0, f"class:{s}" if s else "errors", Pair(1, 200), Pair(0, 20)) for s in range(signals)
            ),
        )
        for n in range(1, count + 1)
    ]


def total(read: list[StableWindows], signal: str = "errors") -> Pair:
    return sum((w.stable for tick in read for w in tick.windows if w.signal == signal), Pair(0, 0))


def test_counts_are_read_back_in_blocks(tmp_path: Path) -> None:
    """Only times within ten seconds are lost; the canary's counts stay with stable's."""
    history(tmp_path).write(ticks(900), 0.0)
    read = history(tmp_path).read()
    assert (len(read), total(read)) == (180, Pair(900, 180_000))
    assert {(one.windows[0].window_s, one.windows[0].canary) for one in read} == {(10.0, Pair(0, 100))}
    assert read[-1].windows[0].end_s == 1800.0


def test_blocks_do_not_join_versions(tmp_path: Path) -> None:
    """Each version has its own history of failures."""
    history(tmp_path).write([*ticks(3), *ticks(3, version="m:v2")], 0.0)
    assert [(one.version, total([one]).total) for one in history(tmp_path).read()] == [("m:v1", 600), ("m:v2", 600)]


def test_the_file_stays_small(tmp_path: Path) -> None:
    """Half an hour of 20 signals takes 100 kB. Of 1,000 signals, the errors and those with most bad events are kept."""
    history(tmp_path).write(ticks(900, signals=20), 0.0)
    assert (tmp_path / "history.json.z").stat().st_size < 100_000
    history(tmp_path).write(ticks(10, signals=1000), 0.0)
    read = history(tmp_path).read()
    assert len(read[0].windows) <= 201
    assert total(read) == Pair(10, 2000)


@pytest.mark.parametrize("content", [b"", b"no zlib", zlib.compress(b"{}"), zlib.compress(b'{"ledger": null, "blo')])
def test_a_damaged_file_is_ignored(tmp_path: Path, content: bytes) -> None:
    """The next write replaces it."""
    (tmp_path / "history.json.z").write_bytes(content)
    assert history(tmp_path).read() == []
    history(tmp_path).write(ticks(3), 0.0)
    assert total(history(tmp_path).read()).bad == 3


def test_the_history_of_another_ledger_is_not_read(tmp_path: Path) -> None:
    """It is about other versions."""
    history(tmp_path, "another").write(ticks(3), 0.0)
    assert history(tmp_path).read() == []


def test_the_history_is_written_every_few_minutes(tmp_path: Path) -> None:
    """A folder that cannot be written stops nothing."""
    kept = history(tmp_path)
    kept.write_if_due(lambda: ticks(3), EVERY_S)
    kept.write_if_due(lambda: ticks(6), EVERY_S + 1)
    assert total(kept.read()).bad == 3
    kept.write_if_due(lambda: ticks(6), 2 * EVERY_S)
    assert total(kept.read()).bad == 6
    lost = KeptHistory(tmp_path / "gone" / "ledger.db", lambda: None)
    lost.write(ticks(3), 0.0)
    assert lost.read() == []
