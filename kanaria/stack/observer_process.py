"""The observer's process: it gets answers on a Unix socket and labels on another, and serves its counts on a port."""

import argparse
import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from contract import environment
from contract.bounded_http import bounded_http
from contract.log_lines import log_as_json
from contract.own_answers import OwnAnswers
from contract.recorded import RecordedFolder
from kanaria.stack.observer_feedback import feedback_app
from kanaria.stack.observer_records import KeptRecords, RecordSettings
from kanaria.stack.sleeping_server import SleepingServer
from observer.findings import Findings
from observer.pages import pages_of
from observer.recording import Recorder
from observer.server import Observer, make_server

_END_S = 0.5  # for open streams at the end
_LOOK_EVERY_S = 0.2

log = structlog.get_logger()


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description="Observe the answers of versions. `kanaria up` does this.")
    parser.add_argument(
        "--socket", type=Path, required=True, help="socket to which the gateway sends copies of answers"
    )
    parser.add_argument("--feedback", type=Path, required=True, help="socket to which the gateway passes labels")
    parser.add_argument("--port", type=int, required=True, help="port of the metrics, on 127.0.0.1")
    parser.add_argument(
        "--answers",
        type=Path,
        required=True,
        help="file that describes how answers are read; it may change at any time",
    )
    parser.add_argument("--recorded", type=Path, required=True, help="folder of recorded requests")
    arguments = parser.parse_args()
    log_as_json()
    for socket in (arguments.socket, arguments.feedback):
        with suppress(FileNotFoundError):
            socket.unlink()  # left by an observer that was killed
    asyncio.run(_run(arguments.socket, arguments.feedback, arguments.port, arguments.answers, arguments.recorded))


async def _run(socket: Path, feedback: Path, port: int, answers: Path, recorded: Path) -> None:
    registry = CollectorRegistry(auto_describe=False)
    records = KeptRecords(_record_settings(), registry)
    findings = Findings(registry, records)
    recorder = Recorder(RecordedFolder(recorded), findings.recorded)
    server = make_server(Observer(findings, recorder), f"unix:{socket}")
    quiet = partial(uvicorn.Config, http=bounded_http(), log_level="warning", access_log=False)
    # Every user of the machine may read them, so connections close: readers must not occupy file descriptors.
    closing = quiet(pages_of(findings), host="127.0.0.1", port=port, headers=[("connection", "close")])
    pages = SleepingServer(closing)
    labels = _Second(quiet(feedback_app(records), uds=str(feedback)))
    await server.start()
    others = [asyncio.create_task(_follow_answers_file(answers, findings)), asyncio.create_task(labels.serve())]
    try:
        await pages.serve()
    finally:
        others[0].cancel()
        labels.should_exit = True
        await others[1]
        await server.stop(_END_S)
        records.close()


class _Second(SleepingServer):
    """A second server, which does not handle signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _record_settings() -> RecordSettings:
    return RecordSettings(
        answers=Path(os.environ[environment.ANSWERS_DIR]),
        predictions=Path(os.environ[environment.PREDICTIONS_DIR]),
        predictions_bytes=int(os.environ[environment.PREDICTION_LOG_MB]) * 1_000_000,
        key=os.environ[environment.ANSWERS_KEY].encode(),
    )


async def _follow_answers_file(path: Path, findings: Findings) -> None:
    """Read `path` again whenever it changes. A file that cannot be read changes nothing."""
    seen: bytes | None = None
    while True:
        with suppress(OSError):
            content = path.read_bytes()  # noqa: ASYNC240 - a few hundred bytes that the kernel has in memory
            if content != seen:
                seen = content
                _apply(content, findings)
        await asyncio.sleep(_LOOK_EVERY_S)


def _apply(content: bytes, findings: Findings) -> None:
    try:
        findings.expect(OwnAnswers.model_validate_json(content))
    except ValidationError as error:
        log.warning("answers_not_understood", errors=error.error_count())


if __name__ == "__main__":
    main()
