"""The stand-ins for Argo Rollouts and Flagger treat answers as the real engines were measured to treat them."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.engines import AnalysisRun, ArgoRollout, FlaggerCanary, ProviderCrashed
from tests.support.running_server import running_server

PASS, FAIL, WAIT = ((200, json.dumps({"verdict": verdict})) for verdict in ("pass", "fail", "inconclusive"))
AWAY, NO_JSON, NULL = (503, "{}"), (200, "<html>please log in</html>"), (200, "null")


class Answers(ThreadingHTTPServer):
    """Gives its answers one after another, and then repeats the last one."""

    def __init__(self) -> None:
        self.coming: list[tuple[int, str]] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []  # paths and bodies
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        answers = self.server
        assert isinstance(answers, Answers)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answers.asked.append((self.path.partition("?")[0], body))
        status, text = answers.coming.pop(0) if len(answers.coming) > 1 else answers.coming[0]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[Answers]:
    with running_server(Answers()) as answers:
        yield answers


def metric(**limits: Any) -> dict[str, Any]:
    web = {"method": "POST", "url": "http://judge/v1/judge", "headers": [], "jsonBody": {}, "timeoutSeconds": 10}
    conditions = {"successCondition": 'result.verdict == "pass"', "failureCondition": 'result.verdict == "fail"'}
    return {**conditions, "provider": {"web": web}, **limits}


@pytest.mark.parametrize(
    ("limits", "answers", "phases"),
    [
        ({}, [AWAY], ["Running"] * 4 + ["Error"]),
        ({}, [AWAY, AWAY, AWAY, AWAY, PASS, AWAY], ["Running"] * 9 + ["Error"]),
        ({"consecutiveErrorLimit": 100}, [AWAY], ["Running"] * 20),
        ({}, [WAIT], ["Inconclusive"]),
        ({"inconclusiveLimit": 2}, [WAIT], ["Running", "Running", "Inconclusive"]),
        ({"consecutiveSuccessLimit": 1}, [AWAY, PASS], ["Running", "Successful"]),
        ({"consecutiveSuccessLimit": 1}, [NO_JSON], ["Successful"]),
        ({"count": "2"}, [PASS], ["Running", "Successful"]),
        ({}, [PASS, FAIL], ["Running", "Failed"]),
    ],
    ids=[
        "five errors",
        "five in a row",
        "many allowed",
        "pauses",
        "waits first",
        "one success",
        "no JSON",
        "count",
        "fail",
    ],
)
def test_an_analysis_run_treats_answers_as_argo_does(
    server: Answers, limits: dict[str, Any], answers: list[tuple[int, str]], phases: list[str]
) -> None:
    """Only consecutive errors abort, and an answer that is not JSON is a success."""
    server.coming = list(answers)
    run = AnalysisRun(metric(**limits), {}, server.url)
    assert [run.measure() for _ in phases] == phases


def test_a_null_answer_crashes_the_controller_of_argo(server: Answers) -> None:
    """Therefore no judge may ever give this answer."""
    server.coming = [NULL]
    with pytest.raises(ProviderCrashed):
        AnalysisRun(metric(), {}, server.url).measure()


@pytest.mark.parametrize(
    ("answers", "state"), [([AWAY], "aborted"), ([FAIL], "aborted"), ([PASS], "promoted")], ids=["away", "fail", "pass"]
)
def test_a_rollout_ends_as_its_analyses_do(server: Answers, answers: list[tuple[int, str]], state: str) -> None:
    """An error of the background analysis aborts it like a failure, so templates must allow many errors."""
    server.coming = list(answers)
    template = {"spec": {"args": [], "metrics": [metric(consecutiveSuccessLimit=1)]}}
    steps = [{"setWeight": 50}, {"analysis": {"templates": [{"templateName": "step"}], "args": []}}]
    background = {"templates": [{"templateName": "step"}], "args": []}
    spec = {"spec": {"strategy": {"canary": {"analysis": background, "steps": steps}}}}
    argo = ArgoRollout(spec, {"step": template}, {"token": ""}, server.url)
    for _ in range(8):
        argo.reconcile()
    assert argo.state == state


@pytest.mark.parametrize(
    ("status", "phase", "is_told"),
    [
        (200, "Progressing", True),
        (202, "Progressing", True),
        (204, "Waiting", True),
        (409, "Waiting", True),
        (429, "Waiting", False),
        (500, "Waiting", False),
    ],
)
def test_a_hook_of_flagger_continues_on_200_and_202(server: Answers, status: int, phase: str, is_told: bool) -> None:
    """204 is a refusal, and the body of 429 and 5xx is lost."""
    server.coming = [(status, "" if status == 204 else "because")]
    hooks = [{"type": "confirm-rollout", "url": "http://judge/v1/flagger/start"}]
    canary = FlaggerCanary({"spec": {"analysis": {"webhooks": hooks}}}, server.url, "1", "token", "digits")
    canary.tick()
    assert canary.phase == phase
    assert ("because" in canary.said[0]) is (is_told and status != 204)


def test_flagger_waits_for_its_promotion_and_first_sends_the_previous_checksum(server: Answers) -> None:
    """A build may start under the checksum of the previous one. A build that waits at the end may be rolled back."""
    kinds = {"start": "confirm-rollout", "failed": "rollback", "promote": "confirm-promotion"}
    hooks = [{"type": kind, "url": f"http://judge/{path}"} for path, kind in kinds.items()]
    analysis = {"stepWeights": [], "webhooks": hooks}
    go_on, wait = (200, "go on"), (409, "not yet")
    server.coming, server.asked = [go_on, wait, wait, go_on], []
    canary = FlaggerCanary({"spec": {"analysis": analysis}}, server.url, "2", "token", "digits", previous="1")
    phases = []
    for _ in range(3):
        canary.tick()
        phases.append(canary.phase)
    assert phases == ["Progressing", "WaitingPromotion", "Failed"]
    assert [(path, body["checksum"]) for path, body in server.asked] == [
        ("/start", "1"),
        ("/failed", "2"),
        ("/promote", "2"),
        ("/failed", "2"),
    ]
