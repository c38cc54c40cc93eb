"""The load test of one Locust process: its settings, checked before anything is sent, and its current run.

Locust's events drive it.
"""

import logging
import time
from pathlib import Path

import gevent
from gevent.event import Event
from geventhttpclient.client import HTTPClientPool
from locust.env import Environment
from locust.runners import LocalRunner, Runner

from contract.http import API_KEY_HEADER
from contract.terminal import Terminal
from loadtest.errors import ScenarioError, TargetError
from loadtest.http_contract import Requests
from loadtest.pacing import Pacer
from loadtest.paths import LIVE, REPORT, SUMMARY, make_out_dir, new_out_dir
from loadtest.recorder import Recorder
from loadtest.report import render
from loadtest.results import ExitCode, write_atomically
from loadtest.samples import Sample, load_samples
from loadtest.scenario import Scenario, load_scenario
from loadtest.schedule import arrivals
from loadtest.tables import print_summary
from loadtest.target import check_host, read_api_key

logger = logging.getLogger(__name__)
LEAD_S = 0.3  # from the start of the users to the start of the schedule, so that the first arrivals are not late
LIVE_EVERY_S = 1.0


class Run:
    """One run of a scenario, from Locust's `test_start` to its `test_stop`."""

    def __init__(self, scenario: Scenario, samples: tuple[Sample, ...], host: str) -> None:
        self.host = host
        self.start_s = time.monotonic() + LEAD_S
        self.start_cpu_s = time.process_time()
        self.pacer = Pacer(arrivals(scenario))
        self.requests = Requests(samples, rows=scenario.rows, seed=scenario.seed)
        self.recorder = Recorder(scenario, started_at=time.time() + LEAD_S)
        self.is_over = Event()
        self.stopped_s: float | None = None  # when the stop was requested
        self.has_given_up = False  # an arrival was claimed and never sent
        # One pool for all users: it opens one connection per request in flight and reuses the most recent one.
        self.connections = HTTPClientPool(
            concurrency=scenario.users, connection_timeout=scenario.timeout_s, network_timeout=scenario.timeout_s
        )

    def now_s(self) -> float:
        """Seconds from the start of the schedule; negative before it."""
        return time.monotonic() - self.start_s

    @property
    def is_stopping(self) -> bool:
        return self.stopped_s is not None

    def release(self) -> None:
        """Record that a claimed arrival was answered or given up; the last one ends the run."""
        self.pacer.release()
        if self.pacer.is_finished:
            self.is_over.set()

    def write_live(self, out_dir: Path) -> None:
        write_atomically(out_dir / LIVE, self.recorder.live(max(0.0, self.now_s())).model_dump_json(indent=2))


class Load:
    """The settings of this process, and its current run."""

    def __init__(self, environment: Environment, runner: Runner) -> None:
        """Check every setting and listen to Locust's events.

        Raises: LoadTestError.
        """
        if not isinstance(runner, LocalRunner):
            raise ScenarioError(
                "a schedule cannot be shared by several Locust processes",
                saw=f"a {type(runner).__name__}",
                do="leave out --master, --worker and --processes: one process can send 2,000 requests/s",
            )
        options = environment.parsed_options
        self.scenario = load_scenario(options.scenario)
        self._samples = load_samples(options.samples)
        api_key = read_api_key(options.api_key_file)
        self.headers = {"content-type": "application/json", "accept-encoding": "identity"}
        self.headers |= {API_KEY_HEADER: api_key} if api_key else {}
        self._is_headless: bool = options.headless
        self._allow_remote: bool = options.allow_remote
        if self._is_headless or environment.host:  # otherwise Locust's web page asks for the host later
            check_host(environment.host, allow_remote=self._allow_remote)
        self._out_dir = make_out_dir(options.out_dir or new_out_dir(self.scenario.name))
        self._environment = environment
        self.run: Run | None = None
        # By default Locust would start one user, and cut requests off at the end.
        options.num_users = options.num_users or self.scenario.users
        options.spawn_rate = options.spawn_rate or options.num_users
        environment.stop_timeout = environment.stop_timeout or self.scenario.timeout_s + 1
        environment.events.test_start.add_listener(self._start)
        environment.events.test_stopping.add_listener(self._stopping)
        environment.events.test_stop.add_listener(self._stop)
        environment.events.quitting.add_listener(self._quitting)

    def _start(self, **_: object) -> None:
        try:
            host = check_host(self._environment.host, allow_remote=self._allow_remote)
        except TargetError as error:  # the host was typed into Locust's web page
            logger.error("%s", error)  # noqa: TRY400 - the trace of a refusal says nothing more
            gevent.spawn(self._environment.runner.stop)
            return
        self.run = Run(self.scenario, self._samples, host)
        for user_class in self._environment.user_classes:
            user_class.client_pool = self.run.connections
        gevent.spawn(self._keep_live, self.run)

    def _keep_live(self, run: Run) -> None:
        run.write_live(self._out_dir)
        while not run.is_over.wait(timeout=LIVE_EVERY_S):
            run.write_live(self._out_dir)
        if not run.is_stopping:
            runner = self._environment.runner
            (runner.quit if self._is_headless else runner.stop)()

    def _stopping(self, **_: object) -> None:
        """Send nothing new from now on; requests in flight continue."""
        if self.run:
            self.run.stopped_s = self.run.now_s()
            self.run.is_over.set()

    def _stop(self, **_: object) -> None:
        """Write the results: no request is in flight."""
        run, self.run = self.run, None
        if run is None or run.stopped_s is None:
            return
        stopped_early = run.has_given_up or not run.pacer.is_finished
        for arrival in run.pacer.overdue(run.stopped_s):
            run.recorder.not_sent(arrival.due_s)
        run.connections.close()
        run.write_live(self._out_dir)
        summary = run.recorder.summary(
            host=run.host, stopped_early=stopped_early, generator_cpu_s=time.process_time() - run.start_cpu_s
        )
        write_atomically(self._out_dir / SUMMARY, summary.model_dump_json(indent=2))
        self._environment.process_exit_code = int(summary.exit_code)
        write_atomically(self._out_dir / REPORT, render(summary))
        print_summary(summary, Terminal(), report=self._out_dir / REPORT)

    def _quitting(self, **_: object) -> None:
        # On SIGTERM, Locust calls this before it has stopped the users, and reads the exit code right after.
        self._environment.runner.stop()
        if self._environment.process_exit_code is None:
            self._environment.process_exit_code = int(ExitCode.NOTHING_MEASURED)
