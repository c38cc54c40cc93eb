"""The Locust file: open-loop users that send a scenario's schedule.

It can also be run manually: `locust -f loadtest/locustfile.py --host http://127.0.0.1:8080`, with or without
--headless. Importing it applies Locust's gevent patches.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import ClassVar

from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import Runner

from loadtest.errors import LoadTestError
from loadtest.http_contract import Outgoing, Reply, read_reply
from loadtest.paths import default_samples
from loadtest.recorder import Outcome
from loadtest.results import ExitCode
from loadtest.schedule import Arrival
from loadtest.session import Load, Run
from loadtest.target import API_KEY_VARIABLE


class OpenLoopUser(FastHttpUser):  # type: ignore[misc] # Locust's types are not followed
    """A free user takes the next arrival of the shared schedule and waits until it is due."""

    load: ClassVar[Load]
    claimed: Arrival | None = None

    def wait_time(self) -> float:
        """Seconds until this user's next request is due; 0 if it is late because every user was busy."""
        run = self.load.run
        if run is None or run.is_stopping or (claimed := run.pacer.claim()) is None:
            raise StopUser
        self.claimed = claimed
        return max(0.0, claimed.due_s - run.now_s())

    @task  # type: ignore[untyped-decorator] # as above
    def send_claimed(self) -> None:
        """Send the request that is now due, and record how it ended."""
        if (arrival := self.claimed) is None or (run := self.load.run) is None:
            return  # Locust runs a task before the first wait
        if run.is_stopping:
            return  # Locust considers this user idle and is about to kill it, which would cut a request off
        self.claimed = None
        self._send(run, arrival, run.requests.make(arrival.task))

    def _send(self, run: Run, arrival: Arrival, outgoing: Outgoing) -> None:
        sent_s = run.now_s()
        run.recorder.sent(arrival.due_s, sent_s)
        status, reply, done_s = 0, Reply("cut off when the run ended"), None
        try:
            with self.client.request(
                "POST",
                outgoing.path,
                name=f"{outgoing.path} {outgoing.task}",
                data=outgoing.body,
                headers=self.load.headers,
                catch_response=True,
            ) as response:
                status, done_s = response.status_code, run.now_s()
                # So that Locust's own statistics also show the latency from the scheduled time.
                response.request_meta["response_time"] = (done_s - arrival.due_s) * 1e3
                if status:
                    reply = read_reply(outgoing, status, response.headers, response.content or b"")
                else:
                    reply = Reply(f"no answer: {response.error!r}")
                if reply.failure is None:
                    response.success()
                else:  # Locust keeps every distinct text forever, so this one is short
                    response.failure(f"HTTP {status}" if status else "no answer")
        finally:
            run.requests.remember(outgoing, reply)
            done_s = run.now_s() if done_s is None else done_s
            run.recorder.ended(Outcome(outgoing.task, arrival.due_s, sent_s, done_s, status, reply))
            run.release()

    def on_stop(self) -> None:
        """Give back an arrival that is not due yet and that this user had claimed."""
        if self.claimed and (run := self.load.run):
            self.claimed = None
            run.has_given_up = True
            run.release()


def add_options(parser: ArgumentParser) -> None:
    """Add this file's options to Locust's command line."""
    own = parser.add_argument_group("Open-loop load test")
    own.add_argument("--scenario", default="steady", help="name or YAML file of the scenario; default: steady")
    own.add_argument("--samples", type=Path, default=default_samples(), help="rows and labels, JSON lines")
    own.add_argument("--api-key-file", type=Path, help=f"file with the API key; default: ${API_KEY_VARIABLE}")
    own.add_argument("--out-dir", type=Path, help="folder for the results; default: a new one in .kanaria/loadtest")
    own.add_argument("--allow-remote", action="store_true", help="allow a host that is not this machine")


def prepare(environment: Environment, runner: Runner, **_: object) -> None:
    """Check all settings before anything is sent."""
    try:
        OpenLoopUser.load = Load(environment, runner)
    except LoadTestError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(prepare)
