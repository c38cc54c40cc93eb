"""Recorded requests asked again of two real servers: what breaks callers is found, and stable's own noise is none."""

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
    """No two of its answers are equal, and one in three has a field that the others lack."""
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
    """One request in eight, always the same."""
    return as_json({}, 422) if body == b"3" else well(path, body)


def flaky(_: str, body: bytes) -> Answer:
    """A third of its answers fail: a thing for the judge, not for a few requests."""
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
            except ConnectionError:  # whoever asked has given up
                self.close_connection = True

    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        server.daemon_threads, server.block_on_close = True, False
        yield Backend(tag, "127.0.0.1", server.server_port)


def recorded(
    behaviour: Behaviour = well, *, requests: int = 8, route: str = "/detect"
) -> list[tuple[int, RecordedRequest]]:
    """Requests with what `behaviour` answered then."""
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
def test_an_identical_version_passes_whatever_never_repeats(behaviour: Behaviour, requests: int) -> None:
    """Ids, times, fields that come and go; answers that are no JSON; answers of 6 MB."""
    found = replay(behaviour, behaviour, requests=recorded(behaviour, requests=requests))
    assert (found.count, found.losses, found.remarks) == (requests, (), ())
    assert len(found.took_ms) == requests


@pytest.mark.parametrize(
    ("canary", "place", "says"),
    [
        (
            without_confidence,
            "/detect confidence",
            "its answers at /detect lack `confidence`, with stable a number (8 of 8 recorded requests; `kanaria re",
        ),
        (without_an_inner_field, "/detect rows[].n", "its answers at /detect lack `rows[].n`, with stable a number"),
        (with_text, "/detect confidence", "`confidence` of its answers at /detect is text, with stable a number"),
        (as_page, "/detect", "its answers at /detect are no JSON, stable's are JSON"),
        (refusing, "/detect", "/detect gives 422, stable 200 (1 of 8 recorded requests; `kanaria record --show 3`"),
    ],
)
def test_what_breaks_callers_is_a_loss_with_its_place(canary: Behaviour, place: str, says: str) -> None:
    """Beside noise, and each once."""
    found = replay(canary)
    assert [loss.place for loss in found.losses] == [place]
    assert found.losses[0].says.startswith(says)


def test_other_values_are_said_and_break_nobody() -> None:
    """A better model answers otherwise; the shadow step judges how often."""
    found = replay(other_labels)
    assert found.losses == ()
    assert found.remarks == ("its answers to recorded requests differ from m:v1's in `label` of /detect (8 of 8)",)


def test_fields_that_the_plan_ignores_are_not_compared() -> None:
    """Neither their values, nor whether they are there."""
    answers = OwnAnswers.model_validate({"/detect": {"ignore": ["confidence"]}})
    with serving(well, "m:v1") as stable, serving(without_confidence, "m:v2") as canary:
        found = Replayer(canary, stable, limit_s=5, budget_s=60, answers=answers).run(recorded())
    assert (found.count, found.losses, found.remarks) == (8, (), ())


def test_other_bytes_are_said_where_an_answer_is_no_json() -> None:
    found = replay(other_binary, binary)
    assert (found.losses, len(found.remarks)) == ((), 1)
    assert "`(body)` of /detect (8 of 8)" in found.remarks[0]


def test_what_only_some_of_its_answers_show_is_left_to_the_judge() -> None:
    """Both fail now and then: of neither is that a loss."""
    assert replay(flaky, flaky, requests=recorded(well)).losses == ()


def test_keys_that_are_data_are_no_fields() -> None:
    """Other labels in an object by label are other values."""

    def scores(_: str, body: bytes) -> Answer:
        return as_json({"scores": {f"label {body.decode()}": 0.5, "other": 0.5}})

    def other_scores(_: str, body: bytes) -> Answer:
        return as_json({"scores": {"new": 0.5, "other": 0.5}})

    found = replay(other_scores, scores)
    assert (found.losses, len(found.remarks)) == ((), 1)


def test_a_request_without_an_answer_is_a_loss_and_its_route_is_left() -> None:
    """After the service's own time limit; the other routes are still asked."""
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


def test_what_stable_itself_refuses_now_says_nothing() -> None:
    """The order that a request was about is gone."""

    def forgetful(_: str, body: bytes) -> Answer:
        return as_json({}, 404) if body in (b"1", b"2") else well("", body)

    found = replay(refusing, forgetful, requests=recorded(well))
    assert (found.count, len(found.losses)) == (6, 1)
    assert (
        "recorded requests that were not compared, because stable does not answer them with success now: 2"
        in found.remarks
    )


def test_what_stable_answers_otherwise_than_when_it_was_recorded_is_said() -> None:
    """It is no difference between the versions."""
    found = replay(other_labels, other_labels, requests=recorded(well))
    assert found.losses == ()
    assert found.remarks == (
        "since they were recorded, m:v1's own answers have changed in `label` of /detect (8 of 8)",
    )


def test_every_route_gets_some_of_the_time() -> None:
    """However many requests of the first there are."""
    turns: list[str] = []

    def counting(path: str, body: bytes) -> Answer:
        turns.append(path)
        return well(path, body)

    requests = [*recorded(route="/a"), *recorded(route="/b", requests=1)]
    replay(well, counting, requests=requests)
    assert [path for path, _ in itertools.groupby(turns)][:2] == ["/a", "/b"]


def test_when_the_time_is_over_the_rest_is_counted() -> None:
    """No release waits for ever."""
    found = replay(well, budget_s=0.0)
    assert (found.count, found.losses) == (0, ())
    assert found.remarks == ("recorded requests that were not replayed, because the time for it was over: 8",)


def test_requests_bring_what_was_kept_and_an_id_of_kanarias_own() -> None:
    """So that no log of predictions takes them for users'."""
    asked: list[dict[str, str]] = []
    with serving(well, "m:v1", asked) as stable, serving(well, "m:v2", asked) as canary:
        Replayer(canary, stable, limit_s=5, budget_s=60).run(recorded(requests=1))
    assert {headers["content-type"] for headers in asked} == {JSON}
    assert all(headers["x-request-id"].startswith("preflight-") for headers in asked)
    assert len({headers["x-request-id"] for headers in asked}) == len(asked)
    assert not any("x-api-key" in headers or "cookie" in headers for headers in asked)
