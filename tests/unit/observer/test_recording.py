"""The observer keeps the requests that Envoy shows it, and only those that are wanted."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from contract.recorded import (
    LARGEST_ANSWER,
    LARGEST_REQUEST,
    MOST_PER_ROUTE,
    RecordedFolder,
    RecordedRequest,
    Recording,
)
from observer import recording
from observer.answers import LARGEST_BYTES
from observer.messages import ATTRIBUTES, ProcessingRequest
from observer.recording import Recorder
from tests.support.small_disk import mounted

pytestmark = pytest.mark.needs("serve")


@pytest.fixture
def folder(tmp_path: Path) -> RecordedFolder:
    made = RecordedFolder(tmp_path / "recorded")
    made.begin(Recording(until_s=time.time() + 600, leave_out=("/pay",)))
    return made


def headers(part: Any, **given: str) -> None:
    for key, value in given.items():
        part.headers.headers.add(key=key.replace("_", "-").replace("--", ":"), raw_value=value.encode())


def shown(
    *,
    route: str = "/detect",
    path: str = "/detect",
    body: bytes = b"{}",
    status: int = 200,
    answer: bytes = b'{"label": "en"}',
    is_cut: bool = False,
) -> list[Any]:
    """The messages about one request and its answer; `route` is empty if the gateway gives it no name."""
    begin, asked, head, parts, end = (ProcessingRequest() for _ in range(5))
    headers(begin.request_headers, __method="POST", __path=path, content_type="application/json")
    begin.attributes[ATTRIBUTES].update({"xds.route_name": route} if route else {"other": "x"})
    asked.request_body.body, asked.request_body.end_of_stream = body, True
    headers(head.response_headers, __status=str(status), content_type="application/json")
    parts.response_body.body = answer
    end.response_body.end_of_stream = True
    return [begin, asked, head, parts] if is_cut else [begin, asked, head, parts, end]


async def _each(messages: Iterable[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield ProcessingRequest.FromString(message.SerializeToString())


def record(folder: RecordedFolder, *requests: list[Any]) -> list[str]:
    """The outcome of each request that was examined."""
    seen: list[str] = []

    async def show() -> None:
        recorder = Recorder(folder, seen.append)
        for messages in requests:
            await recorder.observe(_each(messages), "m:v1")

    asyncio.run(show())
    return seen


def kept(folder: RecordedFolder) -> list[RecordedRequest]:
    return [request for _, request in folder.requests() if request]


def test_a_request_is_kept_with_its_answer(folder: RecordedFolder) -> None:
    assert record(folder, shown(body=b'{"text": "hello"}')) == ["kept"]
    (request,) = kept(folder)
    assert (request.version, request.route, request.method, request.path) == ("m:v1", "/detect", "POST", "/detect")
    assert (request.headers, request.body) == ({"content-type": "application/json"}, b'{"text": "hello"}')
    assert (request.status, request.answer) == (200, b'{"label": "en"}')


def test_only_headers_that_a_replay_needs_are_kept(folder: RecordedFolder) -> None:
    """A compressed body was replayed as garbage, and a version that checks its caller refused every replay."""
    given = {"content_encoding": "gzip", "x_kanaria_caller": "clinic"}
    messages = shown()
    headers(messages[0].request_headers, **given, cookie="a=b", x_api_key="k")
    assert record(folder, messages) == ["kept"]
    named = {"content-type": "application/json", "content-encoding": "gzip", "x-kanaria-caller": "clinic"}
    assert kept(folder)[0].headers == named


@pytest.mark.parametrize(
    ("messages", "outcomes"),
    [
        (shown(route=""), []),  # a stream, a WebSocket or a mounted application
        (shown(route="/pay", path="/pay"), []),
        (shown(path="/detect?token=x"), ["private"]),
        (shown(path="/detect?" + "?key" * 6000), ["private"]),
        (shown(status=422), ["unsuccessful"]),
        (shown(status=503), ["unsuccessful"]),
        (shown(body=bytes(LARGEST_REQUEST + 1)), ["too_large"]),
        (shown(is_cut=True), ["cut"]),
        (shown()[:1], ["cut"]),
        ([ProcessingRequest()], []),
        ([], []),
    ],
)
def test_requests_that_are_not_kept_are_counted(
    folder: RecordedFolder, messages: list[Any], outcomes: list[str]
) -> None:
    assert (record(folder, messages), kept(folder)) == (outcomes, [])


def test_nothing_is_kept_outside_a_recording(folder: RecordedFolder) -> None:
    """This holds even if the gateway still shows requests because a command was killed."""
    folder.begin(Recording(until_s=time.time() - 1))
    assert record(folder, shown()) == []
    folder.end()
    assert (record(folder, shown()), kept(folder)) == ([], [])


def test_a_route_may_have_a_name_like_a_secret(folder: RecordedFolder) -> None:
    """It is private only if the caller's own text follows the name."""
    named = shown(route="/token/decode", path="/token/decode")
    given = shown(route="/token/{token}", path="/token/abc")
    assert record(folder, named, given) == ["kept", "private"]


@pytest.mark.parametrize("size", [LARGEST_ANSWER + 1, LARGEST_BYTES + 1])
def test_only_the_hash_of_a_large_answer_is_kept(folder: RecordedFolder, size: int) -> None:
    """Of an answer of 5 MB the observer itself holds nothing else."""
    assert record(folder, shown(answer=bytes(size))) == ["kept"]
    (request,) = kept(folder)
    assert (request.answer, len(request.answer_digest)) == (None, 64)
    assert folder.files()[0].path.stat().st_size < 2000


def test_the_same_request_is_kept_once(folder: RecordedFolder) -> None:
    assert record(folder, shown(), shown(), shown(body=b"[]")) == ["kept", "known", "kept"]


def test_concurrent_equal_requests_are_kept_once(folder: RecordedFolder) -> None:
    """Eight requests at the same time gave eight files."""
    seen: list[str] = []

    async def show() -> None:
        recorder = Recorder(folder, seen.append)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(recorder.observe(_each(shown()), "m:v1"))

    asyncio.run(show())
    assert (sorted(seen), len(kept(folder))) == (["kept", *["known"] * 7], 1)


def test_a_request_of_an_earlier_recording_is_kept_again_only_after_it_was_removed(folder: RecordedFolder) -> None:
    """This also holds for a restarted observer. A damaged file does not count as a request."""
    assert record(folder, shown()) == ["kept"]
    folder.begin(Recording(until_s=time.time() + 300))
    assert record(folder, shown()) == ["known"]
    folder.files()[0].path.write_text("{")
    assert record(folder, shown()) == ["kept"]
    folder.clear()
    assert record(folder, shown()) == ["kept"]


def test_a_busy_route_reaches_its_limit_and_a_rare_one_is_still_kept(
    folder: RecordedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_MOST_PER_S", 1000)
    busy = [shown(body=str(n).encode()) for n in range(40)]
    assert record(folder, *busy, shown(route="/rare", path="/rare")) == ["kept"] * (MOST_PER_ROUTE + 1)
    assert [request.route for request in kept(folder)].count("/rare") == 1


def test_the_requests_examined_per_second_are_limited(folder: RecordedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of requests therefore costs little."""
    monkeypatch.setattr(recording, "_MOST_PER_S", 3)
    # the run may reach into the next second
    assert len(record(folder, *(shown(route=f"/{n}") for n in range(20)))) <= 6


def test_a_full_disk_loses_only_the_new_request(tmp_path: Path) -> None:
    """Earlier recordings stay, and recording continues when there is space again."""
    with mounted(tmp_path / "disk", mib=1) as disk:
        folder = RecordedFolder(disk.folder / "recorded")
        folder.begin(Recording(until_s=time.time() + 600))
        assert record(folder, shown(body=b"1")) == ["kept"]
        disk.fill()
        assert record(folder, shown(body=b"2")) == ["unwritten"]
        disk.free()
        assert record(folder, shown(body=b"3")) == ["kept"]
        assert [request.body for request in kept(folder)] == [b"1", b"3"]
