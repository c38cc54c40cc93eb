"""Loads a server with wrk: each connection sends its next request when the previous one was answered."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.errors import BenchmarkError

_SCRIPT = Path(__file__).with_name("wrk.lua")
_TIMEOUT_S = 30.0  # beyond the run itself


class Load(BaseModel):
    """What wrk measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    refused: int  # answers other than 2xx and 3xx
    broken: int  # no answer at all

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.duration_us * 1e6


def find_wrk() -> str:
    """Path of the program. Raises BenchmarkError."""
    path = shutil.which("wrk")
    if path is None:
        raise BenchmarkError(
            "the load generator wrk is not installed",
            saw="no `wrk` on the PATH",
            do="install the package wrk (Debian: apt-get install wrk, macOS: brew install wrk)",
        )
    return path


def load(url: str, bodies: Path, *, connections: int, seconds: int, headers: Mapping[str, str] | None = None) -> Load:
    """Post `bodies` to `url`/predict for `seconds`, in one thread. Raises BenchmarkError, also when a request fails."""
    command = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(_SCRIPT), url]
    words = [word for header in (headers or {}).items() for word in header]
    done = subprocess.run(
        [*command, "--", str(bodies), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + _TIMEOUT_S,
    )
    try:
        measured = Load.model_validate_json(done.stdout.strip().rpartition("\n")[2])
    except ValidationError as error:
        saw = f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}"
        raise BenchmarkError("wrk measured nothing", saw=saw, do=f"run it yourself: {' '.join(command)}") from error
    if measured.refused or measured.broken or not measured.requests:
        saw = f"{measured.requests} requests, {measured.refused} refused, {measured.broken} without an answer"
        raise BenchmarkError(f"{url} does not answer every request", saw=saw, do="read the server's log")
    return measured
