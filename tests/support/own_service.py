"""A service without any dependency on Kanaria: BentoML's first example in shape, with more kinds of routes."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

SERVICE = '''
import asyncio
import hashlib
import os
import typing
from pathlib import Path

import bentoml
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

BEHAVES = "well"
STATE = {"gate": None, "seen": {}}


def gate():
    if STATE["gate"] is None:
        STATE["gate"] = asyncio.Event()
    return STATE["gate"]


async def hello(request):
    return JSONResponse({"hello": request.path_params["name"], "method": request.method})


async def until_opened(request):
    """Says something, and the rest only when somebody has asked for it."""
    async def parts():
        gate().clear()  # another request may have opened it
        yield "first "
        await gate().wait()
        yield "last"
    return StreamingResponse(parts(), media_type="text/event-stream")


async def opened(request):
    gate().set()
    return PlainTextResponse("opened")


async def cut(request):
    async def parts():
        yield "first "
        await asyncio.sleep(0.2)
        raise RuntimeError("broke off")
    return StreamingResponse(parts(), media_type="text/plain")


async def endless(request):
    async def parts():
        while True:
            yield "more "
            await asyncio.sleep(0.05)
    return StreamingResponse(parts(), media_type="text/plain")


async def count(request):
    """How often each key was posted: what is not safe to do twice."""
    if request.method == "GET":
        return JSONResponse(STATE["seen"])
    key = (await request.body()).decode()
    STATE["seen"][key] = STATE["seen"].get(key, 0) + 1
    await asyncio.sleep(0.02)
    return JSONResponse({"pid": os.getpid()})


async def echo(socket):
    await socket.accept()
    while True:
        await socket.send_text("echo " + await socket.receive_text())


APP = Starlette(
    routes=[
        Route("/hello/{name}", hello, methods=["GET", "PUT", "DELETE"]),
        Route("/until-opened", until_opened),
        Route("/open", opened, methods=["POST"]),
        Route("/cut", cut),
        Route("/endless", endless),
        Route("/count", count, methods=["GET", "POST"]),
        WebSocketRoute("/echo", echo),
    ]
)


@bentoml.service(traffic={"timeout": 25}, name="summary")
@bentoml.asgi_app(APP, path="/app")
class Summary:
    @bentoml.api
    def summarize(self, text: str) -> dict:
        share = hashlib.blake2b(text.encode()).digest()[0] / 256
        if BEHAVES == "refuses a tenth" and share < 0.1:
            raise bentoml.exceptions.InvalidArgument("no")
        return {"summary": text[:20], "length": len(text)}

    @bentoml.api
    def size(self, file: Path) -> int:
        return file.stat().st_size

    @bentoml.api
    def rare(self, text: str) -> dict:
        if BEHAVES == "breaks a rare route":
            raise RuntimeError("not thought of")
        return {"text": text}

    @bentoml.api
    async def words(self, text: str) -> typing.AsyncGenerator[str, None]:
        for word in text.split():
            yield word + " "
'''
BENTOFILE = "service: service:Summary\nname: summary\ninclude: [service.py]\npython: {lock_packages: false}\n"
WITH_TASK = """
import bentoml

@bentoml.service(name="summary")
class Summary:
    @bentoml.api
    def summarize(self, text: str) -> dict:
        return {"summary": text[:20]}

    @bentoml.task
    def digest(self, text: str) -> str:
        return text[::-1]
"""
WITHOUT_START = """
import bentoml

@bentoml.service(name="summary", workers=2)
class Summary:
    def __init__(self):
        raise RuntimeError("no such table: words")

    @bentoml.api
    def summarize(self, text: str) -> str:
        return text
"""
WITH_METRICS = """
import time

import bentoml
import prometheus_client
from bentoml.metrics import Histogram

BEHAVES = "well"
REFUSED = {"well": 10, "refuses": 3}  # of so many answers one refuses
ANSWERS = prometheus_client.Counter("chat_answers_total", "Answers", ["outcome"])
REFUSALS = prometheus_client.Counter("chat_refusals_total", "Answers that refuse")
LENGTH = Histogram("chat_answer_words", "Words of an answer", buckets=(1, 2, 5, 10, 20))
WAITING = prometheus_client.Gauge("chat_waiting", "Requests that wait")

@bentoml.service(name="summary")
class Summary:
    def __init__(self):
        self.asked = 0

    @bentoml.api
    def summarize(self, text: str) -> dict:
        self.asked += 1
        refuses = self.asked % REFUSED[BEHAVES] == 0
        ANSWERS.labels(outcome="refused" if refuses else "answered").inc()
        if refuses:
            REFUSALS.inc()
        LENGTH.observe(2 if refuses else 7)
        return {"summary": "I cannot help with that" if refuses else text[:20]}
"""
WITHOUT_ROUTES = """
import bentoml

@bentoml.service(name="summary")
class Summary:
    pass
"""


def build(folder: Path, home: Path, version: str, *, behaves: str = "well", service: str = SERVICE) -> str:
    """Build the service with `bentoml build` from `folder`, which nothing else uses, and return the Bento's tag."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "service.py").write_text(service.replace('BEHAVES = "well"', f'BEHAVES = "{behaves}"'))
    (folder / "bentofile.yaml").write_text(BENTOFILE)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [str(Path(sys.executable).parent / "bentoml"), "build", "--version", version],
        cwd=folder,
        env={**environment, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        check=True,
    )
    return f"summary:{version}"


def store_with(shared: Path, name: str, versions: Mapping[str, Mapping[str, str]]) -> Path:
    """A Bento store in `shared`, made once for all of pytest's workers.

    Args:
        versions: version -> the arguments for `build`.
    """
    store = shared / name
    with FileLock(shared / f"{name}.lock"):
        built = {folder.name for folder in (store / "bentos" / "summary").glob("*")}
        for version in versions.keys() - built:
            build(shared / f"{name}-folder", store, version, **versions[version])
    return store
