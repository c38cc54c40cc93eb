"""The observer's process: the stream of answers on a Unix socket, its counts on a port of this machine."""

import argparse
import asyncio
from contextlib import suppress
from pathlib import Path

import structlog
import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contract.http import METRICS_PATH
from contract.log_lines import log_as_json
from contract.observation import DIFFERENCES_PATH, FieldDifferences
from contract.own_answers import OwnAnswers
from contract.recorded import RecordedFolder
from observer.findings import Findings
from observer.pairing import Versions
from observer.recording import Recorder
from observer.server import Observer, make_server

_END_S = 0.5  # of streams that are open
_LOOK_EVERY_S = 0.2

log = structlog.get_logger()


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description="Compare the answers of two versions. `kanaria up` does this.")
    parser.add_argument("--socket", type=Path, required=True, help="where the gateway shows answers")
    parser.add_argument("--port", type=int, required=True, help="of what was counted, on 127.0.0.1")
    parser.add_argument("--answers", type=Path, help="what their parts mean; the file may come and change at any time")
    parser.add_argument("--recorded", type=Path, help="folder of recorded requests; without it none are recorded")
    arguments = parser.parse_args()
    log_as_json()
    with suppress(FileNotFoundError):
        arguments.socket.unlink()  # of an observer that was killed
    asyncio.run(_run(arguments.socket, arguments.port, arguments.answers, arguments.recorded))


async def _run(socket: Path, port: int, answers: Path | None, recorded: Path | None) -> None:
    findings = Findings()
    recorder = Recorder(RecordedFolder(recorded), findings.recorded) if recorded else None
    server = make_server(Observer(findings, recorder), f"unix:{socket}")
    pages = uvicorn.Server(
        uvicorn.Config(pages_of(findings), host="127.0.0.1", port=port, log_level="warning", access_log=False)
    )
    await server.start()
    told = asyncio.create_task(_keep_told(answers, findings)) if answers else None
    try:
        await pages.serve()
    finally:
        if told:
            told.cancel()
        await server.stop(_END_S)


async def _keep_told(path: Path, findings: Findings) -> None:
    """Read `path` again whenever it is another one. What cannot be read changes nothing."""
    seen: bytes | None = None
    while True:
        with suppress(OSError):
            content = path.read_bytes()  # noqa: ASYNC240 - a few hundred bytes that the kernel has in memory
            if content != seen:
                seen = content
                _tell(content, findings)
        await asyncio.sleep(_LOOK_EVERY_S)


def _tell(content: bytes, findings: Findings) -> None:
    try:
        findings.expect(OwnAnswers.model_validate_json(content))
    except ValidationError as error:
        log.warning("answers_not_understood", errors=error.error_count())


def pages_of(findings: Findings) -> Starlette:
    """What others read: the counts, and the fields in which two versions differ."""

    async def metrics(_: Request) -> Response:
        return Response(findings.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def differences(request: Request) -> Response:
        asked = request.query_params
        found = findings.differing(Versions(asked.get("stable", ""), asked.get("canary", "")))
        return Response(FieldDifferences.dump_json(found), media_type="application/json")

    return Starlette(routes=[Route(METRICS_PATH, metrics), Route(DIFFERENCES_PATH, differences)])


if __name__ == "__main__":
    main()
