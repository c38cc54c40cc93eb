"""The served Bento under overload: a bounded queue, deadlines, clients who leave, and steady memory."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import httpx
import orjson
import pytest

from tests.support.asking import HTTP
from tests.support.bentos import Bentos, Server
from tests.support.waiting import eventually

V1, SLOW = "digits:v1", "digits:slow"  # the slow one takes 150 ms for each batch
MAX_ROWS, QUEUE = 1024, 8  # rows of one request; the number of such requests that may wait
STAYING = 6  # clients that wait for the answer
ANSWER = b'"predictions":['
REQUESTS, WARM_UP, AT_ONCE = 100_000, 20_000, 50
MAX_GROWTH_MB = 12.0  # over 80,000 requests: 150 bytes for each would be a leak


@pytest.fixture(scope="module")
def slow(bentos: Bentos) -> Iterator[Server]:
    with bentos.serve(SLOW) as running:
        yield running


@contextlib.asynccontextmanager
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as opened:
        yield opened


def answered(server: Server) -> float:
    return sum(value for name, value in server.metrics().items() if name[0] == "kanaria_predictions_total")


def large(bentos: Bentos) -> bytes:
    """A request of the largest size."""
    row = orjson.loads(bentos.requests(V1, 1))["features"][0]
    return orjson.dumps({"features": [row] * MAX_ROWS})


def test_a_full_queue_refuses_with_retry_after_and_stays_healthy(bentos: Bentos, slow: Server) -> None:
    """Six times the queue's size: some are answered, the others get a Retry-After header, and nothing else happens."""

    async def ask() -> tuple[list[httpx.Response], list[int]]:
        async with client(slow) as opened:
            body = large(bentos)
            asked = [asyncio.create_task(opened.post("/predict", content=body)) for _ in range(6 * QUEUE)]
            healths = []
            while not all(request.done() for request in asked):
                healths += [(await opened.get(path)).status_code for path in ("/readyz", "/livez")]
            return [await request for request in asked], healths

    answers, healths = asyncio.run(ask())
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert len(answers) - len(refused) >= QUEUE
    assert {(answer.headers["retry-after"], answer.headers["content-type"]) for answer in refused} == {
        ("1", "application/problem+json")
    }
    assert (len(healths) > 0, set(healths)) == (True, {200})


def test_a_client_that_leaves_uses_no_model_time(bentos: Bentos, slow: Server) -> None:
    """Of eight waiting requests, the clients of two leave a second before the model reaches them."""

    async def ask() -> list[bytes]:
        async with client(slow) as opened:
            staying = [await waiting(slow, large(bentos)) for _ in range(STAYING)]  # the model is busy with the first
            await read_by(opened)
            leaving = [await waiting(slow, large(bentos)) for _ in range(QUEUE - len(staying))]
            await read_by(opened)
            for _, writer in leaving:
                writer.close()
            await read_by(opened)
            heads = [await reader.readline() for reader, _ in staying]
            for _, writer in staying:
                writer.close()
            await opened.post("/predict", content=bentos.requests(V1, 1))
            return heads

    before = answered(slow)
    assert asyncio.run(ask()) == [b"HTTP/1.1 200 OK\r\n"] * STAYING
    assert answered(slow) - before == STAYING + 1


async def waiting(server: Server, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which one complete request was sent."""
    reader, writer = await asyncio.open_connection(*server.address)
    writer.transport.set_write_buffer_limits(high=0)
    writer.write(b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    await writer.drain()
    return reader, writer


async def read_by(opened: httpx.AsyncClient) -> None:
    """Wait until the server has read everything sent or closed before: it answers these requests in order."""
    for _ in range(10):
        await opened.get("/livez")


def test_a_request_that_waits_too_long_gets_a_503(bentos: Bentos) -> None:
    """The deadline is shorter than the model's time: the answer has the reason and a Retry-After header."""
    with bentos.serve(SLOW, KANARIA_DEADLINE_S="0.1") as server:
        answer = HTTP.post(f"{server.url}/predict", content=bentos.requests(V1, 1))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["detail"] == "the model did not answer within 0.1 s; try again later"
        assert HTTP.get(f"{server.url}/readyz").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("POST", "/predict/", 404), ("POST", "/readyz", 405), ("DELETE", "/metrics", 405)],
)
def test_an_unknown_path_gets_a_problem(slow: Server, method: str, path: str, status: int) -> None:
    """BentoML refuses it in plain text; the client gets a problem with its own request id."""
    answer = HTTP.request(method, slow.url + path, headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert (problem["status"], problem["request_id"], path in problem["detail"]) == (status, "mine", True)


def test_memory_is_steady_over_100_000_requests(bentos: Bentos) -> None:
    """The prediction log and the table for feedback are on; after a warm-up, memory does not grow."""
    with bentos.serve(V1) as server:
        (worker,) = server.workers()
        pipelined(server, bentos.requests(V1, 1), WARM_UP)
        before = worker.memory_info().rss
        pipelined(server, bentos.requests(V1, 1), REQUESTS - WARM_UP)
        grown_mb = (worker.memory_info().rss - before) / 1e6
        series = ("kanaria_requests_total", "/predict", "2xx", V1)
        eventually(lambda: server.metrics()[series] == REQUESTS)
    assert grown_mb < MAX_GROWTH_MB


def pipelined(server: Server, body: bytes, requests: int) -> None:
    """Send many requests at a time on one connection: such a client uses less CPU than the server."""
    one = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    with socket.create_connection(server.address, timeout=120) as connection:
        for _ in range(requests // AT_ONCE):
            connection.sendall(one * AT_ONCE)
            received, answers = b"", 0
            while answers < AT_ONCE:
                received = received[-len(ANSWER) + 1 :] + connection.recv(262_144)
                answers += received.count(ANSWER)
