"""`python -m benchmarks drift`: time and memory of a drift report on a large prediction log."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import typer
from numpy.typing import NDArray

from benchmarks.markdown import table
from benchmarks.output import FOLDER, Out, Write, command_line, show_table, write_files
from contract.answer_types import Labels, Prediction
from contract.model_files import Feature, Schema
from contract.prediction_log import COLUMNS_FILE, LINE, Columns, segment_name, version_folder
from contract.reference_file import write_reference
from contract.terminal import Terminal
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL

PAGE = "drift.md"
ROWS, COLUMNS = 1_000_000, 64
LIMIT_S, LIMIT_MB = 30.0, 1536.0
HEADS = ("rows logged", "log", "pages", "time", "CPU time", "peak memory", "result")
_VERSION = "wide:v1"
_SEGMENT_LINES = 40_000
_REFERENCE_ROWS = 5000
_SPAN_S = 3000.0
_ANSWER = b'{"request_id":"%032x","version":"wide:v1","predictions":[{"label":"%d","confidence":0.97}]}'


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of `kanaria drift report`."""

    rows: int  # logged
    log_mb: float
    how: str  # with pages or without
    took_s: float
    cpu_s: float
    peak_mb: float
    result: str  # in words

    @property
    def is_within(self) -> bool:
        return self.took_s <= LIMIT_S and self.peak_mb <= LIMIT_MB


def drift(
    rows: Annotated[int, typer.Option(min=10_000, help="Rows in the largest log.")] = ROWS,
    columns: Annotated[int, typer.Option(min=2, max=1000, help="Number of features in a row.")] = COLUMNS,
    write: Write = False,
    out: Out = FOLDER,
) -> None:
    """Time a drift report on a log of many rows; exit code 1 when it takes more than 30 s or 1.5 GB."""
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="kanaria-") as name:
        home = Path(name)
        _write_model(home, columns)
        logged = 0
        for wanted in (rows // 100, rows // 10, rows):
            with Terminal(stderr=True).status(f"writing {wanted:,} rows of {columns} columns ..."):
                _write_log(home / "predictions", wanted - logged, columns, first=logged)
            logged = wanted
            for how in ("with Evidently's pages", "--quick"):
                with Terminal(stderr=True).status(f"reporting on {logged:,} rows, {how} ..."):
                    costs.append(_measured(home, logged, how))
    show_table(HEADS, map(_row, costs))
    if write:
        command = command_line("drift", ("--rows", rows, ROWS), ("--columns", columns, COLUMNS))
        write_files(out, {PAGE: page(costs, columns, command)})
    raise typer.Exit(EXIT_DONE if all(cost.is_within for cost in costs) else EXIT_FAIL)


def _write_model(home: Path, columns: int) -> None:
    folder = home / "bentoml" / "models" / "wide" / "v1"
    folder.mkdir(parents=True)
    (folder / "model.yaml").touch()
    features = tuple(Feature(name=f"feature_{i}", minimum=0, maximum=16) for i in range(columns))
    Schema(features=features, answer=Labels(labels=tuple(map(str, range(10))))).write(folder)
    rng = np.random.default_rng(0)
    rows, digits = _rows(rng, _REFERENCE_ROWS, columns), _digits(rng, _REFERENCE_ROWS)
    predictions = [Prediction(str(digit), 0.97) for digit in digits]
    write_reference(folder, rows.astype(np.float32), predictions, [str(digit) for digit in digits])


def _write_log(folder: Path, rows: int, columns: int, *, first: int) -> None:
    """Requests of one row each, which need the most lines, spread over most of the last hour."""
    own = folder / version_folder(_VERSION)
    own.mkdir(parents=True, exist_ok=True)
    names = tuple(f"feature_{i}" for i in range(columns))
    about = Columns(version=_VERSION, model=_VERSION, features=names, hashed=())
    (own / COLUMNS_FILE).write_text(about.model_dump_json())
    rng = np.random.default_rng(first + 1)
    begin_s = time.time() - _SPAN_S
    for number in range(0, rows, _SEGMENT_LINES):
        count = min(_SEGMENT_LINES, rows - number)
        at_s = begin_s + _SPAN_S * (number + np.arange(count)) / rows
        lines = _lines(_rows(rng, count, columns), _digits(rng, count), at_s, first + number)
        (own / segment_name(at_s[0], first)).write_bytes(b"".join(lines))


def _rows(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    return rng.integers(0, 17, (rows, columns)).astype(np.float64)


def _digits(rng: np.random.Generator, rows: int) -> list[int]:
    digits: list[int] = rng.integers(0, 10, rows).tolist()
    return digits


def _lines(rows: NDArray[np.float64], digits: list[int], at_s: NDArray[np.float64], first: int) -> Iterator[bytes]:
    for number, (row, digit, at) in enumerate(zip(rows.tolist(), digits, at_s.tolist(), strict=True)):
        request = orjson.dumps({"features": [row]})
        yield LINE % (at, request, _ANSWER % (first + number, digit))


def _measured(home: Path, rows: int, how: str) -> Cost:
    command = [sys.executable, "-m", "kanaria", "drift", "report", "--version", _VERSION, "--last", "1h", "--json"]
    command += ["--quick"] if how == "--quick" else []
    environment = os.environ | {"KANARIA_HOME": str(home), "BENTOML_HOME": str(home / "bentoml")}
    began_s = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        output = process.stdout.read() if process.stdout else b""
        _, status, used = os.wait4(process.pid, 0)  # of this process, not of the largest child so far
        process.returncode = os.waitstatus_to_exitcode(status)
    took_s = time.perf_counter() - began_s
    log_bytes = sum(path.stat().st_size for path in home.glob("predictions/*/*.jsonl"))
    found = json.loads(output)
    return Cost(
        rows=rows,
        log_mb=log_bytes / 1e6,
        how=how,
        took_s=took_s,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024),
        result=f"{found['state']}, {found['rows']:,} rows used",
    )


def _row(cost: Cost) -> tuple[str, ...]:
    return (
        f"{cost.rows:,}",
        f"{cost.log_mb:,.0f} MB",
        cost.how,
        f"{cost.took_s:.1f} s",
        f"{cost.cpu_s:.1f} s",
        f"{cost.peak_mb:,.0f} MB",
        cost.result,
    )


def page(costs: Sequence[Cost], columns: int, command: str) -> str:
    """The whole page, as Markdown.

    Args:
        costs: of each run, in the order of the rows.
        columns: features of a row.
        command: the command that wrote it.
    """
    return f"""\
# What a drift report costs

Written by `{command}`.

The command compares the last hour of a log, whose requests have one row each, with a reference of
{_REFERENCE_ROWS:,} rows: {columns} features, label and confidence. Time and CPU time are those of the whole command,
including the start of Python; memory is the peak of its process. If other work keeps the cores busy, the time grows but
not the CPU time.

{table(HEADS, map(_row, costs))}

The promise: at most {LIMIT_S:.0f} s and {LIMIT_MB / 1024:.1f} GB. Only counting the lines takes longer for a longer
log; Evidently gets at most 5,000 rows. Reports on a running release are made with `--quick`.
"""
