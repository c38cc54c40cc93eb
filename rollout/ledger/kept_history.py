"""Stores the calibration's history beside the ledger, so that neither a restart nor an upgrade loses it.

The ledger is append-only and would grow by megabytes a day. This file is replaced, and limited to half an hour and a
number of signals. It contains no decisions: if it is lost, a new history begins.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from contract.files import write_whole
from rollout.errors import LedgerError
from rollout.judge import Pair, Window
from rollout.judge.types import BothNumbers

log = structlog.get_logger()

EVERY_S = 120.0  # between two writes: how much a killed controller may lose
_BLOCK_S = 10.0  # windows are joined to blocks of at least this length
_MOST_SIGNALS = 200  # signals with the most bad events: without bad events there is no noise to measure
_LARGEST_BYTES = 64 * 2**20  # of a file when it is read, decompressed
_NOTHING = Pair(0, 0)


@dataclass(frozen=True, slots=True)
class StableWindows:
    """One version's counts while it was stable: windows that end together."""

    version: str
    windows: tuple[Window, ...]


class _Block(BaseModel):
    """One version's counts over some seconds; by signal, stable's and then canary's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    end_s: float
    window_s: float
    version: str
    counts: dict[str, tuple[Pair, Pair]]
    numbers: dict[str, BothNumbers] = {}  # for signals whose events are numbers


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    ledger: str | None  # its identity
    blocks: tuple[_Block, ...]


_FILE = TypeAdapter(_File)


class KeptHistory:
    """The file of one ledger."""

    def __init__(self, ledger: Path, identity: Callable[[], str | None]) -> None:
        """
        Args:
            ledger: the ledger's path.
            identity: returns the ledger's identity; another ledger's history is not read. Raises LedgerError.
        """
        self._path, self._identity = ledger.with_name("history.json.z"), identity
        self._written_s = 0.0  # on the steady clock
        self._is_trouble_logged = False

    def read(self) -> list[StableWindows]:
        """The ticks of the last write, oldest first; none if the file is missing, damaged or another ledger's."""
        try:
            unpack = zlib.decompressobj()
            found = _FILE.validate_json(unpack.decompress(self._path.read_bytes(), _LARGEST_BYTES))
            known = self._identity()
        except FileNotFoundError:
            return []
        except (OSError, zlib.error, ValidationError, LedgerError) as error:
            log.warning("history_not_read", saw=" ".join(str(error).split())[:200])
            return []
        if None not in (found.ledger, known) and found.ledger != known:
            return []
        return [
            StableWindows(
                block.version,
                tuple(
                    Window(block.end_s, block.window_s, name, *counts, block.numbers.get(name))
                    for name, counts in block.counts.items()
                ),
            )
            for block in found.blocks
        ]

    def write_if_due(self, ticks: Callable[[], Iterable[StableWindows]], now_s: float) -> None:
        """Write `ticks` if the file is too old. `now_s`: seconds on a steady clock."""
        if now_s >= self._written_s + EVERY_S:
            self.write(ticks(), now_s)

    def write(self, ticks: Iterable[StableWindows], now_s: float) -> None:
        """Replace the file. A failure is logged once."""
        self._written_s = now_s
        try:
            content = _File(ledger=self._identity(), blocks=tuple(_blocks(ticks)))
            write_whole(self._path, zlib.compress(_FILE.dump_json(content), 1), mode=0o600)
        except (OSError, LedgerError) as error:
            if not self._is_trouble_logged:
                log.warning("history_not_written", saw=str(error))
            self._is_trouble_logged = True
        else:
            self._is_trouble_logged = False


def _blocks(ticks: Iterable[StableWindows]) -> Iterator[_Block]:
    """The ticks, joined to blocks of one version."""
    ticks = list(ticks)
    bad: Counter[str] = Counter()
    for tick in ticks:
        bad.update({window.signal: window.stable.bad for window in tick.windows})
    numbers = {window.signal for tick in ticks for window in tick.windows if window.numbers}
    kept = {"errors", *numbers, *(signal for signal, _ in bad.most_common(_MOST_SIGNALS))}
    together: list[StableWindows] = []
    seconds = 0.0
    for tick in ticks:
        if together and (tick.version != together[0].version or seconds >= _BLOCK_S):
            yield _joined(together, seconds, kept)
            together, seconds = [], 0.0
        together.append(tick)
        seconds += tick.windows[0].window_s
    if together:
        yield _joined(together, seconds, kept)


def _joined(ticks: Sequence[StableWindows], seconds: float, kept: Collection[str]) -> _Block:
    """Ticks of one version, `seconds` together, as one block."""
    counts: dict[str, tuple[Pair, Pair]] = {}
    numbers: dict[str, BothNumbers] = {}
    for window in (window for tick in ticks for window in tick.windows):
        signal = window.signal
        if signal in kept:
            stable, canary = counts.get(signal, (_NOTHING, _NOTHING))
            counts[signal] = stable + window.stable, canary + window.canary
        if both := window.numbers:
            known = numbers.get(signal)
            numbers[signal] = BothNumbers(known.stable + both.stable, known.canary + both.canary) if known else both
    last = ticks[-1]
    return _Block(end_s=last.windows[0].end_s, window_s=seconds, version=last.version, counts=counts, numbers=numbers)
