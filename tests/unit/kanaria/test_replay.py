"""Recorded requests replayed against two real servers: what breaks callers is found, and stable's own noise is not."""

import hashlib
import itertools
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from contract.own_answers import OwnAnswers
from contract.recorded import LARGEST_ANSWER, RecordedRequest
from kanaria.stack.ports import free_port
from kanaria.stack.replay import Replayed, Replayer
from rollout.fleet import Backend
from tests.support.running_server import running_server

Answer = tuple[int, str, bytes]
Behaviour = Callable[[str, bytes], Answer]
JSON = "application/json"


def as_json(value: object, status: int = 200) -> Answer:
    return status, JSON, json.dumps(value).encode()


def label(text: bytes) -> str:
    return "en" if len(text) % 2 else "de"


def well(_: str, body: bytes) -> Answer:
    """No two answers are equal, and one in three has a field that the others lack."""
    noise = {"id": str(uuid.uuid4()), "took_ms": random.random()} | ({"hint": "x"} if random.random() < 0.3 else {})
    return as_json({"label": label(body), "confidence": 0.9, "rows": [{"n": 1}]} | noise)


def without_confidence(path: str, body: bytes) -> Answer:
    answer = json.loads(well(path, body)[2])
    del answer["confidence"]
    return as_json(answer)


def without_an_inner_field(path: str, body: bytes) -> Answer:
    return as_json(json.loads(well(path, body)[2]) | {"rows": [{}]})


def with_text(path: str, body: bytes) -> Answer:
    return as_json(json.loads(well(path, body)[2]) | {"confidence": "high"})


def other_labels(path: str, body: bytes) -> Answer:
    return as_json(json.loads(well(path, body)[2]) | {"label": "fr"})


def as_page(path: str, body: bytes) -> Answer:
    return 200, "text/html", b"<p>en</p>"


def refusing(path: str, body: bytes) -> Answer:
    """Refuses one request in eight, always the same one."""
    return as_json({}, 422) if body == b"3" else well(path, body)


def flaky(_: str, body: bytes) -> Answer:
    """Fails a third of its answers: the judge decides on that, not a replay of a few requests."""
    return as_json({}, 503) if random.random() < 0.3 else well("", body)


def hanging(path: str, body: bytes) -> Answer:
    time.sleep(30 if body == b"3" else 0)
    return well(path, body)


def binary(path: str, body: bytes) -> Answer:
    return 200, "application/octet-stream", body * 3


def other_binary(path: str, body: bytes) -> Answer:
    return 200, "application/octet-stream", body * 4


def large(path: str, body: bytes) -> Answer:
    return 200, JSON, b'"' + bytes([65 + len(body) % 26]) * 6_000_000 + b'"'


@contextmanager
def serving(behaviour: Behaviour, tag: str, asked: list[dict[str, str]] | None = None) -> Iterator[Backend]:
    """A version that answers as `behaviour` says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if asked is not None:
                asked.append({name.lower(): value for name, value in self.headers.items()})
            status, media_type, content = behaviour(self.path, body)
            self.send_response(status)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # the client has given up
                self.close_connection = True

    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        server.daemon_threads, server.block_on_close = True, False
        yield Backend(tag, "127.0.0.1", server.server_port)


def recorded(
    behaviour: Behaviour = well, *, requests: int = 8, route: str = "/detect"
) -> list[tuple[int, RecordedRequest]]:
    """Requests with the answers that `behaviour` gave when they were recorded."""
    found = []
    for number in range(1, requests + 1):
        body = str(number).encode()
        status, media_type, answer = behaviour(route, body)
        is_small, digest = len(answer) <= LARGEST_ANSWER, hashlib.sha256(answer).hexdigest()
        found.append(
            (
                number,
                RecordedRequest(
                    at_s=0.0, version="m:v1", route=route, method="POST", path=route, headers={"content-type": JSON},
                    body=body, status=status, media_type=media_type, encoding="",
                    answer=answer if is_small else None, answer_digest=digest,
                ),
            )
        )  # fmt: skip
    return found


def replay(
    canary: Behaviour,
    stable: Behaviour = well,
    *,
    requests: list[tuple[int, RecordedRequest]] | None = None,
    limit_s: float = 10.0,
    budget_s: float = 60.0,
) -> Replayed:
    random.seed(5)
    with ExitStack() as servers:
        backends = [servers.enter_context(serving(each, tag)) for each, tag in ((canary, "m:v2"), (stable, "m:v1"))]
        replayer = Replayer(*backends, limit_s=limit_s, budget_s=budget_s)
        return replayer.run(recorded(stable) if requests is None else requests)


@pytest.mark.parametrize(("behaviour", "requests"), [(well, 1), (well, 2), (well, 8), (binary, 8), (large, 1)])
def test_an_identical_version_passes_although_its_answers_never_repeat(behaviour: Behaviour, requests: int) -> None:
    """The answers have ids, times and optional fields, are not JSON, or have 6 MB."""
    found = replay(behaviour, behaviour, requests=recorded(behaviour, requests=requests))
    assert (found.count, found.losses, found.remarks) == (requests, (), ())
    assert len(found.took_ms) == requests


@pytest.mark.parametrize(
    ("canary", "place", "says"),
    [
        (
            without_confidence,
            "/detect confidence",
            "its answers at /detect lack `confidence`; on stable it is a number (8 of 8 recorded requests; `kanaria re",
        ),
        (
            without_an_inner_field,
            "/detect rows[].n",
            "its answers at /detect lack `rows[].n`; on stable it is a number",
        ),
        (with_text, "/detect confidence", "`confidence` of its answers at /detect is text; on stable it is a number"),
        (as_page, "/detect", "its answers at /detect are no JSON, stable's are JSON"),
        (refusing, "/detect", "/detect gives 422, stable 200 (1 of 8 recorded requests; `kanaria record --show 3`"),
    ],
)
def test_what_breaks_callers_is_a_loss_with_its_place(canary: Behaviour, place: str, says: str) -> None:
    """Each loss is found among the noise and reported once."""
    found = replay(canary)
    assert [loss.place for loss in found.losses] == [place]
    assert found.losses[0].says.startswith(says)


def test_different_values_are_reported_and_are_no_loss() -> None:
    """A better model gives other answers; the shadow step judges how often."""
    found = replay(other_labels)
    assert found.losses == ()
    assert found.remarks == ("its answers to recorded requests differ from m:v1's in `label` of /detect (8 of 8)",)


def test_fields_that_the_plan_ignores_are_not_compared() -> None:
    """Neither their values nor their presence count."""
    answers = OwnAnswers.model_validate({"/detect": {"ignore": ["confidence"]}})
    with serving(well, "m:v1") as stable, serving(without_confidence, "m:v2") as canary:
        found = Replayer(canary, stable, limit_s=5, budget_s=60, answers=answers).run(recorded())
    assert (found.count, found.losses, found.remarks) == (8, (), ())


def test_different_bytes_are_reported_for_an_answer_that_is_not_json() -> None:
    found = replay(other_binary, binary)
    assert (found.losses, len(found.remarks)) == ((), 1)
    assert "`(body)` of /detect (8 of 8)" in found.remarks[0]


def test_a_difference_in_only_some_answers_is_left_to_the_judge() -> None:
    """Both versions fail now and then, and for neither is that a loss."""
    assert replay(flaky, flaky, requests=recorded(well)).losses == ()


def test_keys_that_are_data_are_not_fields() -> None:
    """In an object keyed by label, other labels are other values."""

    def scores(_: str, body: bytes) -> Answer:
        return as_json({"scores": {f"label {body.decode()}": 0.5, "other": 0.5}})

    def other_scores(_: str, body: bytes) -> Answer:
        return as_json({"scores": {"new": 0.5, "other": 0.5}})

    found = replay(other_scores, scores)
    assert (found.losses, len(found.remarks)) == ((), 1)


def test_an_unanswered_request_is_a_loss_and_ends_its_route() -> None:
    """The service's own time limit applies, and the other routes are still replayed."""
    began_s = time.monotonic()
    requests = [*recorded(), *((number + 8, request) for number, request in recorded(route="/other", requests=2))]
    found = replay(hanging, requests=requests, limit_s=1.0)
    assert [loss.place for loss in found.losses] == ["/detect"]
    assert "/detect gives no answer in 1 s, stable one after" in found.losses[0].says
    assert (
        "recorded requests that were not replayed, because an earlier one of the same route got no answer: 5"
        in found.remarks
    )
    assert found.count == 5
    assert time.monotonic() - began_s < 30


def test_a_canary_that_is_gone_is_a_loss() -> None:
    """It refuses connections at once."""
    with serving(well, "m:v1") as stable:
        found = Replayer(Backend("m:v2", "127.0.0.1", free_port()), stable, limit_s=5, budget_s=60).run(recorded())
    assert [loss.place for loss in found.losses] == ["/detect"]


def test_a_request_that_stable_refuses_now_is_not_compared() -> None:
    """For example, the order that the request was about no longer exists."""

    def forgetful(_: str, body: bytes) -> Answer:
        return as_json({}, 404) if body in (b"1", b"2") else well("", body)

    found = replay(refusing, forgetful, requests=recorded(well))
    assert (found.count, len(found.losses)) == (6, 1)
    assert (
        "recorded requests that were not compared, because stable does not answer them with success now: 2"
        in found.remarks
    )


def test_a_changed_answer_of_stable_is_reported() -> None:
    """It is not a difference between the versions."""
    found = replay(other_labels, other_labels, requests=recorded(well))
    assert found.losses == ()
    assert found.remarks == (
        "since they were recorded, m:v1's own answers have changed in `label` of /detect (8 of 8)",
    )


def test_every_route_gets_a_share_of_the_time() -> None:
    """This holds however many requests the first route has."""
    turns: list[str] = []

    def counting(path: str, body: bytes) -> Answer:
        turns.append(path)
        return well(path, body)

    requests = [*recorded(route="/a"), *recorded(route="/b", requests=1)]
    replay(well, counting, requests=requests)
    assert [path for path, _ in itertools.groupby(turns)][:2] == ["/a", "/b"]


def test_requests_that_do_not_fit_into_the_time_are_counted() -> None:
    """No release waits forever."""
    found = replay(well, budget_s=0.0)
    assert (found.count, found.losses) == (0, ())
    assert found.remarks == ("recorded requests that were not replayed, because the time for it was over: 8",)


def test_replayed_requests_carry_the_recorded_data_and_an_id_of_kanaria() -> None:
    """No prediction log mistakes them for requests of users."""
    asked: list[dict[str, str]] = []
    with serving(well, "m:v1", asked) as stable, serving(well, "m:v2", asked) as canary:
        Replayer(canary, stable, limit_s=5, budget_s=60).run(recorded(requests=1))
    assert {headers["content-type"] for headers in asked} == {JSON}
    assert all(headers["x-request-id"].startswith("preflight-") for headers in asked)
    assert len({headers["x-request-id"] for headers in asked}) == len(asked)
    assert not any("x-api-key" in headers or "cookie" in headers for headers in asked)
