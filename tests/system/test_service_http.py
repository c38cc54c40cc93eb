"""The served Bento as a client and a supervisor see it: real training, `bentoml build` and `bentoml serve`."""

import asyncio
import gzip
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from contract.metrics import LABEL_AGES_S
from contract.model_files import GOLDEN_FILE, Golden
from contract.records import read_lines
from tests.support.asking import HTTP
from tests.support.bentos import BENTOML, Bentos, Server
from tests.support.paths import ROOT
from tests.support.waiting import eventually

V1, SLOW = "digits:v1", "digits:v3-latency"


@pytest.fixture(scope="module")
def bentos(tmp_path_factory: pytest.TempPathFactory) -> Bentos:
    """Two Bentos; v1 is built from `latest`, which then changes."""
    made = Bentos(tmp_path_factory.mktemp("bentoml"))
    made.train("v1")
    made.build("v1")
    made.train("v3-latency")
    made.build("v3-latency", "--arg", f"model={SLOW}")
    return made


@pytest.fixture(scope="module")
def server(bentos: Bentos) -> Iterator[Server]:
    with bentos.serve(V1) as running:
        yield running


@pytest.fixture
def body(bentos: Bentos) -> bytes:
    """A request with one row."""
    return bentos.requests(V1, 1)


def predict(server: Server, content: bytes | str, **headers: str) -> httpx.Response:
    return HTTP.post(f"{server.url}/predict", content=content, headers=headers)


def feedback(server: Server, request_id: str, *labels: str) -> httpx.Response:
    return HTTP.post(f"{server.url}/feedback", json={"request_id": request_id, "labels": labels})


async def sent(client: httpx.AsyncClient, content: bytes) -> asyncio.Task[httpx.Response]:
    """Start a prediction; return when the request has been written and the answer is still to come."""
    is_written = asyncio.Event()

    async def trace(event: str, _info: object) -> None:
        if event == "http11.send_request_body.complete":
            is_written.set()

    answer = asyncio.create_task(client.post("/predict", content=content, extensions={"trace": trace}))
    await is_written.wait()
    return answer


def port_is_closed(server: Server) -> bool:
    try:
        HTTP.get(f"{server.url}/livez", timeout=1)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        pass
    return False


def test_every_series_exists_at_zero_before_the_first_request(server: Server) -> None:
    """A rate over the first request sees its increase: the counters exist before any prediction."""
    metrics = server.metrics()
    totals = {name: value for name, value in metrics.items() if name[0].endswith("_total")}
    expected = {
        *(
            ("kanaria_requests_total", route, status_class, V1)
            for route in ("/predict", "/feedback")
            for status_class in ("2xx", "4xx", "5xx")
        ),
        *(("kanaria_predictions_total", str(digit), V1) for digit in range(10)),
        ("kanaria_feedback_total", "correct", V1),
        ("kanaria_feedback_total", "wrong", V1),
        *(
            ("kanaria_labels_total", f"{age_s:.0f}", outcome, V1)
            for age_s in LABEL_AGES_S
            for outcome in ("came", "correct", "wrong", "late")
        ),
        ("kanaria_disagreement_total", "same", V1),
        ("kanaria_disagreement_total", "different", V1),
        ("kanaria_paired_labels_total", "better", V1),
        ("kanaria_paired_labels_total", "worse", V1),
        ("kanaria_answers_dropped_total", V1),
        ("kanaria_prediction_log_dropped_total", V1),
        ("kanaria_log_failures_total", "answers", V1),
        ("kanaria_log_failures_total", "predictions", V1),
    }
    assert totals == dict.fromkeys(expected, 0.0)


def test_histograms_and_the_model_info_exist_from_the_start(server: Server) -> None:
    """The buckets that rules use exist, by version."""
    metrics = server.metrics()
    assert {
        ("kanaria_request_duration_seconds_bucket", "0.1", "/predict", V1),
        ("kanaria_confidence_bucket", "0.5", V1),
        ("kanaria_model_info", "eager", V1, V1),
    } <= metrics.keys()


def test_a_row_is_answered_with_label_and_confidence(server: Server, body: bytes) -> None:
    """One row gives one prediction, with the version and a request id."""
    answer = predict(server, body)
    document = answer.json()
    assert (answer.status_code, document["version"], len(document["predictions"])) == (200, V1, 1)
    assert document["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-kanaria-version"] == V1
    assert 0.1 <= document["predictions"][0]["confidence"] <= 1


def test_thirty_two_rows_are_answered_in_order(bentos: Bentos, server: Server) -> None:
    """Every row gets the answer that training recorded for it."""
    golden = (read_lines(bentos.model_folder(V1) / GOLDEN_FILE, Golden) * 2)[:32]
    rows = [request.features[0] for request in golden]
    answers = predict(server, orjson.dumps({"features": rows})).json()["predictions"]
    assert [answer["label"] for answer in answers] == [request.predictions[0].label for request in golden]


def test_a_given_request_id_is_kept(server: Server, body: bytes) -> None:
    """It is in the answer's body and header."""
    answer = predict(server, body, **{"x-request-id": "caller-7"})
    assert (answer.json()["request_id"], answer.headers["x-request-id"]) == ("caller-7", "caller-7")


@pytest.mark.parametrize("bad", ["with space", "x" * 129, "{}"])
def test_a_request_id_that_is_not_safe_to_log_is_replaced(server: Server, body: bytes, bad: str) -> None:
    """The caller still gets an id."""
    assert len(predict(server, body, **{"x-request-id": bad}).json()["request_id"]) == 32


WIDE = [0.0] * 64
BAD_BODIES: dict[str, tuple[bytes | str, int, str]] = {
    "not JSON": ("digits please", 400, "not JSON"),
    "empty": ("", 400, "not JSON"),
    "not an object": ("[1, 2]", 422, "object"),
    "no rows": ('{"features": []}', 422, "1 to 1024 rows, saw 0"),
    "wrong width": ('{"features": [[1, 2]]}', 422, "row 0: expected 64 columns, saw 2"),
    "NaN": (json.dumps({"features": [WIDE, [*WIDE[1:], float("nan")]]}), 422, "row 1, column 63 (pixel_7_7)"),
    "infinity": (json.dumps({"features": [[float("inf"), *WIDE[1:]]]}), 422, "row 0, column 0 (pixel_0_0)"),
    "a string": (json.dumps({"features": [["7", *WIDE[1:]]]}), 422, "row 0, column 0"),
    "a boolean": (json.dumps({"features": [[True, *WIDE[1:]]]}), 422, "row 0, column 0"),
    "out of bounds": (json.dumps({"features": [[17, *WIDE[1:]]]}), 422, "expected 0 to 16, saw 17"),
    "10,000 rows": (json.dumps({"features": [[0] * 64] * 10_000}), 422, "1 to 1024 rows, saw 10000"),
    "an unknown field": (json.dumps({"features": [WIDE], "model": "v2"}), 422, "model: unknown field"),
    "20 MB": (b" " * 20_000_000, 413, "larger than 4,194,304 bytes"),
}


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_a_bad_body_is_refused_with_a_problem_that_says_why(server: Server, kind: str) -> None:
    """The answer is an RFC 9457 problem with the right status, the location and the reason."""
    content, status, reason = BAD_BODIES[kind]
    answer = predict(server, content)
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (problem["status"], problem["request_id"]) == (status, answer.headers["x-request-id"])
    assert reason in problem["detail"]


@pytest.mark.parametrize("coding", ["gzip", "GZIP, identity", "br"])
def test_a_compressed_body_is_refused_because_of_its_header(server: Server, body: bytes, coding: str) -> None:
    """Otherwise the error would be about invalid JSON. `identity` is allowed."""
    answer = predict(server, gzip.compress(body), **{"content-encoding": coding})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert f"content-encoding says '{coding}'" in answer.json()["detail"]
    assert predict(server, body, **{"content-encoding": "identity"}).status_code == 200


def test_another_method_is_refused_with_the_allowed_one(server: Server) -> None:
    """GET /predict names the allowed method."""
    answer = HTTP.get(f"{server.url}/predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_each_request_is_counted_once_however_many_rows_it_has(bentos: Bentos, server: Server) -> None:
    """A good request with three rows, one with one row and a bad one raise the counters by exactly that."""
    before = server.metrics()
    predict(server, bentos.requests(V1, 3))
    predict(server, bentos.requests(V1, 1))
    predict(server, "bad")
    risen = {name: value - before[name] for name, value in server.metrics().items()}
    predictions = sum(rise for name, rise in risen.items() if name[0] == "kanaria_predictions_total")
    assert (
        risen["kanaria_requests_total", "/predict", "2xx", V1],
        risen["kanaria_requests_total", "/predict", "4xx", V1],
        risen["kanaria_request_duration_seconds_count", "/predict", V1],
        risen["kanaria_confidence_count", V1],
        predictions,
    ) == (2, 1, 3, 2, 2)


def others(answer: dict[str, Any]) -> list[str]:
    """For each row a digit that was not the answer."""
    return [str((int(row["label"]) + 1) % 10) for row in answer["predictions"]]


def test_feedback_is_counted_once_per_request(bentos: Bentos, server: Server) -> None:
    """Three right rows count as one, and so do two wrong ones; sent twice, they count once."""
    before = server.metrics()
    right, wrong = (predict(server, bentos.requests(V1, rows)).json() for rows in (3, 2))
    sent = (right, [row["label"] for row in right["predictions"]]), (wrong, others(wrong))
    replies = [feedback(server, answer["request_id"], *labels).json()["counted"] for answer, labels in 2 * sent]
    series = [("kanaria_feedback_total", outcome, V1) for outcome in ("correct", "wrong")]
    eventually(lambda: [server.metrics()[name] - before[name] for name in series] == [1, 1])
    assert replies == [True, True, False, False]


def test_a_label_counts_again_when_its_answer_is_ten_seconds_old(bentos: Bentos, server: Server) -> None:
    """It arrives at once and waits until then."""
    age = "kanaria_labels_total", "10"

    def waiting() -> float:
        now = server.metrics()
        return now[*age, "came", V1] - now[*age, "wrong", V1] - now[*age, "correct", V1]

    eventually(lambda: waiting() == 0)  # labels of other tests
    before, asked_s = server.metrics(), time.time()
    answer = predict(server, bentos.requests(V1, 1)).json()
    assert feedback(server, answer["request_id"], *others(answer)).json()["counted"]

    def risen(outcome: str) -> float:
        return server.metrics()[*age, outcome, V1] - before[*age, outcome, V1]

    eventually(lambda: risen("came") == 1)
    eventually(lambda: risen("wrong") == 1)
    assert time.time() - asked_s >= 10
    assert (risen("correct"), risen("late")) == (0, 0)


def test_feedback_that_fits_no_answer_is_refused(server: Server, body: bytes) -> None:
    """An unknown id gets a 404, another number of labels a 422."""
    known = predict(server, body).json()["request_id"]
    statuses = (feedback(server, "unknown", "1").status_code, feedback(server, known, "1", "2").status_code)
    assert statuses == (404, 422)


def test_feedback_received_by_another_version_is_counted_by_the_one_that_answered(
    bentos: Bentos, server: Server, body: bytes
) -> None:
    """The gateway may send feedback to any version; a second server does not change the first one's counters."""
    answer = predict(server, body).json()
    before = server.metrics()
    with bentos.serve(SLOW) as other:
        assert feedback(other, answer["request_id"], answer["predictions"][0]["label"]).status_code == 200
        correct = ("kanaria_feedback_total", "correct", V1)
        eventually(lambda: server.metrics()[correct] == before[correct] + 1)
        assert {name[-1] for name in other.metrics()} == {SLOW}
    assert server.metrics()["kanaria_requests_total", "/predict", "2xx", V1] > 0


def test_a_request_that_two_versions_answered_is_compared_by_both(bentos: Bentos, server: Server) -> None:
    """A mirrored request has one id: both versions' counters rise by one, and agree with the answers."""
    before = server.metrics()
    with bentos.serve(SLOW, workers=2) as other:
        differ = 0
        for request_id, rows in (("first", 1), ("second", 2), ("third", 3)):
            body = orjson.dumps({"features": [orjson.loads(bentos.requests(V1, 3))["features"][rows - 1]] * rows})
            one, two = (
                predict(server_of, body, **{"x-request-id": request_id}).json()["predictions"]
                for server_of in (server, other)
            )
            differ += one[0]["label"] != two[0]["label"]
        expected = {"same": 3 - differ, "different": differ}
        series = {outcome: ("kanaria_disagreement_total", outcome) for outcome in expected}
        eventually(lambda: {o: server.metrics()[*s, V1] - before[*s, V1] for o, s in series.items()} == expected)
        eventually(lambda: {o: other.metrics()[*s, SLOW] for o, s in series.items()} == expected)


def test_a_bento_keeps_the_model_that_it_was_built_with(bentos: Bentos, server: Server) -> None:
    """v1 was built from `latest`, which is another model now."""
    latest = (bentos.home / "models" / "digits" / "latest").read_text()
    assert (latest, ("kanaria_model_info", "eager", V1, V1) in server.metrics()) == ("v3-latency", True)


def test_two_workers_are_counted_as_one(bentos: Bentos, body: bytes) -> None:
    """Forty requests go to two processes: each scrape shows all of them."""
    with bentos.serve(V1, workers=2) as server:
        for _ in range(40):  # a new connection each time, for either worker
            predict(server, body)
        counted = {server.metrics()["kanaria_requests_total", "/predict", "2xx", V1] for _ in range(6)}
    assert counted == {40.0}


def test_the_openapi_page_documents_both_endpoints(server: Server) -> None:
    """BentoML's own page lists /predict and /feedback beside its health endpoints."""
    paths = HTTP.get(f"{server.url}/docs.json").json()["paths"]
    assert {"/predict", "/feedback", "/readyz"} <= paths.keys()


def test_a_busy_model_stays_ready(bentos: Bentos) -> None:
    """/readyz answers while slow predictions are still computed."""
    row = orjson.loads(bentos.requests(SLOW, 1))["features"][0]
    largest = orjson.dumps({"features": [row] * 1024})

    async def ask(server: Server) -> bool:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            slow = [await sent(client, largest) for _ in range(6)]  # each is a separate batch
            ready = await client.get("/readyz")
            was_first = ready.status_code == 200 and not slow[-1].done()
            await asyncio.gather(*slow)
            return was_first

    with bentos.serve(SLOW) as server:
        assert asyncio.run(ask(server))


def test_sigterm_lets_every_request_in_flight_finish(bentos: Bentos) -> None:
    """Sixteen requests are in the slow model when the server gets SIGTERM: all are answered, then it ends."""

    async def ask(server: Server) -> list[int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            asked = await asyncio.gather(*(sent(client, bentos.requests(SLOW, 1)) for _ in range(16)))
            for _ in range(10):  # when these are answered, the server has read everything before them
                await client.get("/livez")
            server.process.send_signal(signal.SIGTERM)
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    with bentos.serve(SLOW) as server:
        assert asyncio.run(ask(server)) == [200] * 16
        assert server.process.wait(timeout=120) == 0


@pytest.mark.parametrize("by", [None, BENTOML], ids=["ours", "bentoml"])
def test_workers_end_with_a_killed_supervisor(bentos: Bentos, by: tuple[str, ...] | None) -> None:
    """After SIGKILL of the server its port is free for the next start."""
    with bentos.serve(V1, by=by) as server:
        server.process.kill()
        eventually(lambda: port_is_closed(server))


def test_a_bento_also_answers_when_bentoml_serves_it(bentos: Bentos, body: bytes) -> None:
    """This is the case in its container."""
    with bentos.serve(V1, by=BENTOML) as server:
        assert predict(server, body).json()["predictions"]
        assert server.metrics()["kanaria_requests_total", "/predict", "2xx", V1] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_workers_share_what_they_import(bentos: Bentos, body: bytes) -> None:
    """At least half of each worker's memory is shared, also after it has answered; a killed one is replaced."""
    with bentos.serve(V1, workers=2) as server:
        for _ in range(20):
            assert predict(server, body).status_code == 200
        first, second = server.workers()
        for worker in (first, second):
            memory = worker.memory_full_info()
            assert memory.uss < memory.rss / 2
        first.kill()
        eventually(lambda: len({*server.workers()} - {first}) == 2)
        eventually(lambda: bentos._ready_workers(server) == 3, within_s=120)
        assert predict(server, body).status_code == 200


def test_a_bento_contains_only_the_service_the_contract_and_its_example(bentos: Bentos) -> None:
    """It has no test, no release tool, no other example and no data."""
    carried = bentos.carried(V1)
    files = {"bentofile.yaml", "constraints.txt"}
    assert {path.parts[0] for path in carried} == {"service", "contract", "examples", "container"} | files
    assert {path.parts[1] for path in carried if path.parts[0] == "examples"} == {"__init__.py", "digits"}
    assert {path.suffix for path in carried} == {".py", ".yaml", ".txt"}


def test_a_store_inside_the_project_is_not_packed(bentos: Bentos, tmp_path: Path) -> None:
    """The state folder may be inside the project, and contains earlier Bentos with files of the same names."""
    for folder in ("service", "contract", "examples", "container"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("bentofile.yaml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    home = tmp_path / ".kanaria" / "bentoml"
    bentos.copied_to(home)
    within = Bentos(home, project=tmp_path)
    within.build("v1-again", "--arg", f"model={V1}")
    assert within.carried("digits:v1-again") == bentos.carried(V1)


def test_no_other_code_mentions_the_example() -> None:
    """Every other file of the service works for any model."""
    sources = [path for folder in ("service", "contract") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in sources if "digits" in path.read_text().lower()] == []
