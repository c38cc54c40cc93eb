"""Runs a load test in its own Locust process, to its end or until it is stopped.

It needs its own process because Locust patches the standard library with gevent.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtest.errors import GeneratorError
from loadtest.paths import LIVE, LOG, SCENARIO, SUMMARY, make_out_dir
from loadtest.results import Live, Summary
from loadtest.samples import load_samples
from loadtest.scenario import Scenario
from loadtest.target import API_KEY_VARIABLE, check_host

READY_TIMEOUT_S = 60.0
_REPORT_TIMEOUT_S = 60.0  # for the report, after the last answer
_POLL_S = 0.05


def start(
    scenario: Scenario,
    *,
    host: str,
    samples: Path,
    out_dir: Path,
    api_key: str | None = None,
    allow_remote: bool = False,
) -> "RunningLoad":
    """Start a load test and return when its schedule begins.

    Args:
        scenario: what to send.
        host: base URL, such as `http://127.0.0.1:8080`.
        samples: rows and labels, JSON lines.
        out_dir: for the live counters, the summary, the report and Locust's log; created if it is missing.
        api_key: sent as `x-api-key`; None: no such header.
        allow_remote: allow a host that is not this machine.

    Raises: TargetError, SamplesError, OutDirError, GeneratorError.
    """
    host = check_host(host, allow_remote=allow_remote)
    load_samples(samples)  # so that a mistake is an error here, not a line in a log
    out_dir = make_out_dir(out_dir)
    (out_dir / SCENARIO).write_text(scenario.model_dump_json(indent=2), "utf-8")
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py"))]
    command += ["--headless", "--only-summary", "--host", host, "--scenario", str(out_dir / SCENARIO)]
    command += ["--samples", str(samples.absolute()), "--out-dir", str(out_dir)]
    command += ["--allow-remote"] if allow_remote else []
    with (out_dir / LOG).open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=out_dir,  # so that no locust.conf or pyproject.toml changes the run
            env=_environment(api_key),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the caller, who then stops this process cleanly
        )
    running = RunningLoad(process, scenario, out_dir)
    try:
        running.wait_until_ready()
    except BaseException:  # also on Ctrl-C: the caller gets no handle with which to stop it
        process.kill()
        process.wait()
        raise
    return running


def run(
    scenario: Scenario,
    *,
    host: str,
    samples: Path,
    out_dir: Path,
    api_key: str | None = None,
    allow_remote: bool = False,
    on_live: Callable[[Live], None] = lambda _: None,
) -> Summary:
    """Run a load test to its end. On Ctrl-C, stop it and summarise the measurements so far.

    Args: as for `start`; on_live: gets the counters about once a second.

    Raises: TargetError, SamplesError, OutDirError, GeneratorError.
    """
    with start(
        scenario, host=host, samples=samples, out_dir=out_dir, api_key=api_key, allow_remote=allow_remote
    ) as running:
        try:
            return running.wait(on_live)
        except KeyboardInterrupt:
            return running.stop()


class RunningLoad:
    """A load test that runs in the background. Leaving its `with` block stops it."""

    def __init__(self, process: subprocess.Popen[bytes], scenario: Scenario, out_dir: Path) -> None:
        self._process = process
        self._scenario = scenario
        self._out_dir = out_dir

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_running:
            self.stop()

    @property
    def _is_running(self) -> bool:
        return self._process.poll() is None

    def live(self) -> Live:
        """The counters, at most about a second old; after the end, the final ones."""
        return Live.model_validate_json((self._out_dir / LIVE).read_bytes())

    def stop(self) -> Summary:
        """Send no more requests, let those in flight finish, and return the summary. Harmless after the end.

        Raises: GeneratorError if the process does not end in time (then it is killed) or left no summary.
        """
        if self._is_running:
            self._process.send_signal(signal.SIGTERM)
        return self._summary(self._scenario.timeout_s + _REPORT_TIMEOUT_S)

    def wait(self, on_live: Callable[[Live], None] = lambda _: None) -> Summary:
        """Wait for the end of the scenario; `on_live` gets the counters about once a second.

        Raises: GeneratorError, as for `stop`.
        """
        deadline = time.monotonic() + self._scenario.duration_s + self._scenario.timeout_s + _REPORT_TIMEOUT_S
        while self._is_running and time.monotonic() < deadline:
            on_live(self.live())
            try:
                self._process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                continue
        return self._summary(timeout_s=0)

    def wait_until_ready(self) -> None:
        """Wait for the first live counters. From then on, SIGTERM ends the process cleanly."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (self._out_dir / LIVE).exists():
            if not self._is_running or time.monotonic() > deadline:
                raise self._failed("the load generator did not start")
            time.sleep(_POLL_S)

    def _summary(self, timeout_s: float) -> Summary:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.wait()
            raise self._failed("the load generator did not end in time") from error
        try:
            return Summary.model_validate_json((self._out_dir / SUMMARY).read_bytes())
        except FileNotFoundError as error:
            raise self._failed("the load generator left no summary") from error

    def _failed(self, what: str) -> GeneratorError:
        log = (self._out_dir / LOG).read_text("utf-8", "replace").strip().splitlines()
        saw = f"exit code {self._process.returncode}; its log ends: " + " | ".join(log[-3:])
        return GeneratorError(what, saw=saw, do=f"read {self._out_dir / LOG}")


def _environment(api_key: str | None) -> dict[str, str]:
    # Locust reads LOCUST_* variables as options, which would silently change the run.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    kept.pop(API_KEY_VARIABLE, None)
    if api_key:
        kept[API_KEY_VARIABLE] = api_key  # not an argument: every user of the machine can see arguments
    root = str(Path(__file__).parents[1])
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH"))))
    return kept
