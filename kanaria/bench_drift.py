"""`kanaria bench drift`: what a drift report costs on a large prediction log, in time and memory of its own process."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import typer
from numpy.typing import NDArray
from rich.console import Console

from rollout.cli import EXIT_DONE, EXIT_FAIL

PAGE = Path("docs/benchmarks/drift.md")
LIMIT_S, LIMIT_MB = 30.0, 1536.0
_VERSION = "wide:v1"
_LINES_OF_A_SEGMENT = 40_000
_REFERENCE_ROWS = 5000
_SPAN_S = 3000.0
_ANSWER = b'{"request_id":"%032x","version":"wide:v1","predictions":[{"label":"%d","confidence":0.97}]}'


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of `kanaria drift report`."""

    rows: int  # logged
    log_mb: float
    how: str
    took_s: float
    cpu_s: float
    peak_mb: float
    found: str

    @property
    def is_within(self) -> bool:
        return self.took_s <= LIMIT_S and self.peak_mb <= LIMIT_MB


def drift(
    rows: Annotated[int, typer.Option(min=10_000, help="Rows in the largest log.")] = 1_000_000,
    columns: Annotated[int, typer.Option(min=2, max=1000, help="Features of a row.")] = 64,
    write: Annotated[bool, typer.Option("--write", help=f"Write {PAGE}.")] = False,
) -> None:
    """Time a drift report over a log of many rows; exit code 1 when it takes over 30 s or 1.5 GB."""
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="kanaria-") as name:
        home = Path(name)
        _write_model(home, columns)
        logged = 0
        for wanted in (rows // 100, rows // 10, rows):
            with Console().status(f"writing {wanted:,} rows of {columns} columns ..."):
                _write_log(home / "predictions", wanted - logged, columns, first=logged)
            logged = wanted
            for how in ("with Evidently's pages", "--quick"):
                costs.append(_measured(home, logged, how))
                typer.echo(_line(costs[-1]))
    if write:
        PAGE.write_text(_page(costs, columns))
        typer.echo(f"written: {PAGE}")
    raise typer.Exit(EXIT_DONE if all(cost.is_within for cost in costs) else EXIT_FAIL)


def _write_model(home: Path, columns: int) -> None:
    folder = home / "bentoml" / "models" / "wide" / "v1"
    folder.mkdir(parents=True)
    (folder / "model.yaml").touch()
    features = [{"name": f"feature_{i}", "minimum": 0, "maximum": 16} for i in range(columns)]
    (folder / "schema.json").write_text(json.dumps({"features": features}))
    rng = np.random.default_rng(0)
    lines = (
        {"features": row, "prediction": {"label": str(digit), "confidence": 0.97}, "truth": str(digit)}
        for row, digit in zip(_rows(rng, _REFERENCE_ROWS, columns).tolist(), _digits(rng, _REFERENCE_ROWS), strict=True)
    )
    (folder / "reference.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))


def _write_log(folder: Path, rows: int, columns: int, *, first: int) -> None:
    """Requests of one row each, spread over most of the last hour: the most lines that so many rows can take."""
    own = folder / _VERSION.replace(":", "@")
    own.mkdir(parents=True, exist_ok=True)
    names = [f"feature_{i}" for i in range(columns)]
    about = {"version": _VERSION, "model": _VERSION, "features": names, "hashed": []}
    (own / "columns.json").write_text(json.dumps(about))
    rng = np.random.default_rng(first + 1)
    begin_s = time.time() - _SPAN_S
    for number in range(0, rows, _LINES_OF_A_SEGMENT):
        count = min(_LINES_OF_A_SEGMENT, rows - number)
        at_s = begin_s + _SPAN_S * (number + np.arange(count)) / rows
        lines = _lines(_rows(rng, count, columns), _digits(rng, count), at_s, first + number)
        (own / f"{at_s[0] * 1000:.0f}-{first}.jsonl").write_bytes(b"".join(lines))


def _rows(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    return rng.integers(0, 17, (rows, columns)).astype(np.float64)


def _digits(rng: np.random.Generator, rows: int) -> list[int]:
    digits: list[int] = rng.integers(0, 10, rows).tolist()
    return digits


def _lines(rows: NDArray[np.float64], digits: list[int], at_s: NDArray[np.float64], first: int) -> Iterator[bytes]:
    for number, (row, digit, at) in enumerate(zip(rows.tolist(), digits, at_s.tolist(), strict=True)):
        request = orjson.dumps({"features": [row]})
        yield b'{"at_s":%.3f,"request":%b,"answer":%b}\n' % (at, request, _ANSWER % (first + number, digit))


def _measured(home: Path, rows: int, how: str) -> Cost:
    command = [sys.executable, "-m", "kanaria", "drift", "report", "--version", _VERSION, "--last", "1h", "--json"]
    command += ["--quick"] if how == "--quick" else []
    environment = os.environ | {"KANARIA_HOME": str(home), "BENTOML_HOME": str(home / "bentoml")}
    began_s = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        told = process.stdout.read() if process.stdout else b""
        _, status, used = os.wait4(process.pid, 0)  # what this very process took, not the largest child so far
        process.returncode = os.waitstatus_to_exitcode(status)
    took_s = time.perf_counter() - began_s
    log_bytes = sum(path.stat().st_size for path in home.glob("predictions/*/*.jsonl"))
    found = json.loads(told)
    return Cost(
        rows=rows,
        log_mb=log_bytes / 1e6,
        how=how,
        took_s=took_s,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024),
        found=f"{found['state']}, {found['rows']:,} rows used",
    )


def _line(cost: Cost) -> str:
    return (
        f"| {cost.rows:,} | {cost.log_mb:,.0f} MB | {cost.how} | {cost.took_s:.1f} s | {cost.cpu_s:.1f} s "
        f"| {cost.peak_mb:,.0f} MB | {cost.found} |"
    )


def _page(costs: list[Cost], columns: int) -> str:
    lines = [
        "# What a drift report costs",
        "",
        "Regenerate with `kanaria bench drift --write`. A log of requests of one row each, the last hour of it, is",
        f"compared with a reference of {_REFERENCE_ROWS:,} rows; {columns} features, label and confidence. Time and",
        "processor time are those of the whole command, start of Python included; memory is the peak of its process.",
        "Two cores: where others keep them busy, the time grows and the processor time does not.",
        "",
        "| rows logged | log | pages | took | processor | peak memory | found |",
        "|---|---|---|---|---|---|---|",
        *map(_line, costs),
        "",
        f"Promised: {LIMIT_S:.0f} s and {LIMIT_MB / 1024:.1f} GB. What grows with the log is the counting of its line",
        "ends; Evidently draws 5,000 rows whatever it holds. The looks at a running release are those with `--quick`.",
        "",
    ]
    return "\n".join(lines)
