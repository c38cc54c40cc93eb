"""`kanaria judge serve`, asked over HTTP by simulated Argo Rollouts and Flagger, with a real Prometheus."""

import asyncio
import atexit
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from typer.testing import CliRunner

from contract.deadline import left_s, within
from kanaria.cli import app
from kanaria.kubernetes.wanted import Engine
from kanaria.stack.ports import free_port
from rollout.errors import SourceUnreachable
from rollout.server.app import make_app
from rollout.server.kept import Attempt, Failure, Kept
from rollout.server.quarantine import Quarantine
from rollout.server.questions import JudgeBody
from rollout.server.releases import Releases
from rollout.server.shared_map import SharedMap
from rollout.sources.profiles import built_in
from rollout.sources.raw_samples import RawSamples, Wanted
from tests.support.children import children_with
from tests.support.dribbling import dribbling
from tests.support.endless import MOST, accepted_bytes
from tests.support.engines import AnalysisRun, ArgoRollout, FlaggerCanary, rounds
from tests.support.generated_series import SHAPES, Pod, fill, openmetrics, running
from tests.support.judges import TOKEN, judging
from tests.support.kubernetes_api import kubernetes_api
from tests.support.markdown import blocks
from tests.support.paths import ROOT
from tests.support.rendered import manifests
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("judge", "serve")

_HTTP = httpx.Client(trust_env=False, timeout=60)
atexit.register(_HTTP.close)
STABLE = "stable-6c"
_GONE_EVERY_S = 120.0
SHAPE = replace(SHAPES["bentoml"], bounds=("0.025", "0.05", "0.25", "0.5", "1.0"))  # slow requests are in none of these


@dataclass(frozen=True)
class Cluster:
    """A Prometheus with the samples of a cluster, up to some minutes from now."""

    folder: Path
    prometheus: str  # the program
    url: str
    began_s: float  # when the samples were made, Unix seconds
    stop: Callable[[], None]
    start: Callable[[], None]

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Suspend it until the block ends: its kernel accepts connections, and it answers nothing."""
        (process,) = children_with(f"--web.listen-address={httpx.URL(self.url).netloc.decode()}")
        process.suspend()
        try:
            yield
        finally:
            process.resume()


def pods_of_the_cluster(now_s: float) -> list[str]:
    """Canaries beside nine pods of stable: half an hour until now and half an hour more, as tests may take long."""
    begin_s, end_s, canary_s = now_s - 3600, now_s + 1800, now_s - 1500
    hash_of = "rollouts_pod_template_hash"
    pods = [
        Pod({"pod": f"s{n}", hash_of: STABLE}, begin_s + n / 10, end_s, before=9_000, per_scrape=20) for n in range(9)
    ]
    # The good canary's pod was restarted in the middle, and the autoscaler added another.
    pods.append(Pod({"pod": "g1", hash_of: "good"}, canary_s, end_s, per_scrape=20, restarts=(now_s - 700,)))
    pods.append(Pod({"pod": "g2", hash_of: "good"}, now_s - 900, end_s, per_scrape=20))
    pods.append(Pod({"pod": "b1", hash_of: "bad"}, canary_s, end_s, per_scrape=20, error_ratio=0.15))
    pods.append(Pod({"pod": "y1", hash_of: "young"}, now_s - 100, end_s, per_scrape=1))
    for number in range(15):  # they end one after the other
        ends_s = now_s - 60 + _GONE_EVERY_S * number
        pods.append(Pod({"pod": f"d{number}", hash_of: f"gone-{number}"}, ends_s - 600, ends_s, per_scrape=20))
    pods += [
        Pod({"pod": "t1", hash_of: "twice", "prometheus_replica": replica}, canary_s, end_s) for replica in ("a", "b")
    ]
    for name, ratio in (("calm", 0.0), ("late", 0.3)):  # promoted: the last pod of stable stopped ten minutes ago
        pods.append(Pod({"pod": f"{name}-s", hash_of: f"{name}-before"}, begin_s, now_s - 600, per_scrape=20))
        pods.append(Pod({"pod": f"{name}-c", hash_of: name}, canary_s, now_s - 580, per_scrape=20))
        pods.append(Pod({"pod": f"{name}-d", hash_of: name}, now_s - 590, end_s, per_scrape=20, error_ratio=ratio))
    for name, ratio in (("works", 0.0), ("breaks", 0.15)):
        pods += [
            Pod({"pod": f"{name}-p{n}", "app": f"{name}-primary"}, begin_s + n, end_s, per_scrape=20) for n in range(3)
        ]
        pods.append(Pod({"pod": f"{name}-c", "app": name}, canary_s, end_s, per_scrape=20, error_ratio=ratio))
    lines = openmetrics(SHAPE, pods)
    slow = [Pod({"pod": f"w{n}", hash_of: f"slow-{n}"}, begin_s, end_s, per_scrape=200) for n in range(2)]
    return lines + openmetrics(SHAPE, slow, interval_s=60.0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[Cluster]:
    folder, port = tmp_path_factory.mktemp("cluster"), free_port()
    program = require_program("prometheus")
    began_s = time.time()
    fill(folder, pods_of_the_cluster(began_s), require_program("promtool"))
    with ExitStack() as stack:

        def start() -> None:
            stack.enter_context(running(folder, program, port=port))

        start()
        yield Cluster(folder, program, f"http://127.0.0.1:{port}", began_s, stack.close, start)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the judge that most tests share; Flagger's builds started a while ago."""
    folder = tmp_path_factory.mktemp("judge")
    for name, checksum in (("works", "1"), ("breaks", "1")):
        Kept(folder / "judge.db").start(Attempt("shop", name, name, checksum), time.time() - 1500)
    return folder


@pytest.fixture(scope="module")
def judge(cluster: Cluster, state: Path) -> Iterator[str]:
    with judging(state, cluster.url) as judge:
        yield judge.url


@pytest.mark.parametrize("endless", ["headers", "trailer value"])
def test_an_endless_request_does_not_fill_its_memory(judge: str, endless: str) -> None:
    """The token is checked only after the headers have arrived."""
    assert accepted_bytes(judge, endless) < MOST / 2
    assert _HTTP.get(f"{judge}/livez").is_success


def question(canary: str, **more: Any) -> dict[str, Any]:
    asked = {"namespace": "shop", "rollout": "digits", "canary": canary, "stable": STABLE, "profile": "bentoml"}
    return asked | more


def ask(url: str, asked: Any, *, path: str = "/v1/judge", token: str = TOKEN) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return _HTTP.post(f"{url}{path}", json=asked, headers=headers, timeout=60)


def argo(url: str, canary: str) -> ArgoRollout:
    templates = manifests(Engine.ARGO, "bentoml", 5, 25)
    facts = {
        "Latest": canary,
        "Stable": STABLE,
        "metadata.name": "digits",
        "metadata.namespace": "shop",
        "token": TOKEN,
    }
    return ArgoRollout(templates["Rollout"], templates, facts, url)


def flagger(url: str, name: str, checksum: str = "1", previous: str = "0") -> FlaggerCanary:
    canary = manifests(Engine.FLAGGER, "bentoml-app", 10, 20, 30, 40, 50)["Canary"]
    return FlaggerCanary(canary, url, checksum, TOKEN, name, previous)


def test_argo_promotes_a_good_version(judge: str) -> None:
    """Its pod was restarted in the middle and a second one added: 5, 25, 100 percent, and the watch."""
    rollout = argo(judge, "good")
    rounds(rollout, lambda: rollout.state != "progressing", most=80)
    assert (rollout.state, rollout.weight) == ("promoted", 100)


def test_argo_rolls_back_a_bad_version(judge: str) -> None:
    """The background analysis ends it, and the measurement contains the reason."""
    rollout = argo(judge, "bad")
    rounds(rollout, lambda: rollout.state != "progressing")
    assert (rollout.state, rollout.weight) == ("aborted", 0)
    (last,) = rollout.background.measurements[-1:]
    assert "canary requests failed" in last["reason"]
    page = _HTTP.get(last["report"])
    assert page.status_code == 200
    assert "In quarantine since" in page.text
    assert "bad" in _HTTP.get(judge).text


def test_flagger_promotes_a_good_version_and_rolls_back_a_bad_one(judge: str) -> None:
    """It uses the webhooks of the example: start, step, promote, failed."""
    works = flagger(judge, "works")
    rounds(works, lambda: works.phase in ("Succeeded", "Failed"))
    assert (works.phase, works.weight) == ("Succeeded", 100), works.said
    breaks = flagger(judge, "breaks")
    rounds(breaks, lambda: breaks.phase in ("Succeeded", "Failed"))
    assert (breaks.phase, breaks.weight) == ("Failed", 0), breaks.said
    again = flagger(judge, "breaks")
    rounds(again, lambda: again.phase == "Failed", most=3)
    assert not any("confirm-traffic-increase" in said for said in again.said)  # it never gets any weight
    fresh = flagger(judge, "breaks", checksum="2", previous="1")  # a new build of the workload: its evidence starts now
    for _ in range(4):
        fresh.tick()
    assert (fresh.phase, fresh.weight) == ("Progressing", 10), fresh.said  # the first weight only


def test_flagger_tries_a_new_build_and_rolls_back_one_that_failed(cluster: Cluster, tmp_path: Path) -> None:
    """When Flagger asks whether a build may start, the checksum is still that of the previous build."""
    Kept(tmp_path / "judge.db").start(Attempt("shop", "breaks", "breaks", "2"), time.time() - 1500)
    body = {"name": "breaks", "namespace": "shop", "phase": "Progressing", "metadata": {"profile": "bentoml-app"}}
    bad, fixed = {**body, "checksum": "2"}, {**body, "checksum": "3"}
    with judging(tmp_path, cluster.url) as replica:
        assert replica.ask(bad, path="/v1/flagger/failed").status_code == 200
        begins = replica.ask(bad, path="/v1/flagger/start")  # as the fixed build is announced
        assert (begins.status_code, "a build failed" in begins.text) == (200, True)
        waiting = replica.ask({**bad, "phase": "Waiting"}, path="/v1/flagger/failed")
        assert (waiting.status_code, "has not begun" in waiting.text) == (409, True)
        assert replica.ask(fixed, path="/v1/flagger/failed").status_code == 409  # it has no requests yet
        assert replica.ask(fixed, path="/v1/flagger/start").status_code == 200
        assert replica.ask(bad, path="/v1/flagger/failed").status_code == 200  # the bad build again
        step = {**bad, "metadata": {"profile": "bentoml-app", "to_percent": "50"}}
        assert replica.ask(step, path="/v1/flagger/step").status_code == 409


def test_a_flagger_hook_explains_what_is_wrong(judge: str) -> None:
    """A rollback is never answered for an unknown canary."""
    body = {"name": "works", "namespace": "shop", "phase": "Progressing", "checksum": "1", "metadata": {}}
    failed = {**body, "metadata": {"profile": "bentoml-app"}}
    unknown = ask(judge, {**failed, "name": "nobody"}, path="/v1/flagger/failed")
    assert unknown.status_code == 404
    step = ask(judge, failed, path="/v1/flagger/step")
    assert step.status_code == 422
    assert "to_percent" in step.text
    assert ask(judge, body, path="/v1/flagger/event").status_code == 200
    assert ask(judge, body, path="/v1/flagger/stop").status_code == 404


def test_replicas_and_restarted_judges_agree(judge: str, cluster: Cluster, tmp_path: Path) -> None:
    """They need only the samples; a failure is kept until a person lifts it."""
    good, bad = question("good", to_percent="25"), question("bad")
    with judging(tmp_path, cluster.url) as replica:
        url = replica.url
        before, failed = ask(url, good).json(), ask(url, bad).json()
    with judging(tmp_path, cluster.url) as replica:
        url = replica.url
        for _ in range(20):
            one, other, again = (ask(each, good).json() for each in (judge, url, judge))
            if one == again:  # no window has ended in between
                break
        assert {**other, "report": ""} == {**one, "report": ""}
        assert (before["verdict"], before["since"]) == (one["verdict"], one["since"])
        assert ask(url, bad).json() == failed
        # It failed against another stable.
        assert ask(url, question("bad", stable="another")).json()["verdict"] == "no_data"
        lifted = {"namespace": "shop", "rollout": "digits", "canary": "bad"}
        assert ask(url, lifted, path="/v1/lift").json() == {"lifted": 1}
        assert ask(url, bad).json()["verdict"] != "fail"  # its evidence starts again


def test_a_version_can_be_lifted_at_a_replica_that_was_not_asked_about_it(cluster: Cluster, tmp_path: Path) -> None:
    """Otherwise it would find the lifted failure in earlier samples; a Flagger build also starts again."""
    asked = question("bad")
    lifted = {key: asked[key] for key in ("namespace", "rollout", "canary")}
    build = Attempt("shop", "digits", "bad", "7")
    Kept(tmp_path / "judge.db").start(build, time.time() - 1500)
    with judging(tmp_path, cluster.url) as replica:
        url = replica.url
        assert ask(url, lifted, path="/v1/lift").json() == {"lifted": 0}
        assert ask(url, asked).json()["verdict"] != "fail"
    began_s = Kept(tmp_path / "judge.db").started_s(build)
    assert began_s is not None
    assert began_s > time.time() - 60


def test_a_version_lifted_while_it_is_judged_stays_lifted(cluster: Cluster, tmp_path: Path) -> None:
    """A failure in the evidence from before the lift is not kept after it."""

    class Lifting(RawSamples):
        def ahead(self, *given: Any) -> Any:
            if not lifted:
                lifted.append(releases.lift(Attempt("shop", "digits", "bad")))
            return super().ahead(*given)

    lifted: list[tuple[int, list[str]]] = []
    samples, kept = Lifting(cluster.url), Kept(tmp_path / "judge.db")
    releases = Releases(samples, built_in(), Quarantine(kept, now_s=time.time), url="http://127.0.0.1")
    said = releases.judge(JudgeBody.model_validate(question("bad")))
    samples.close()
    assert (said["verdict"], lifted) == ("no_data", [(0, [])])
    assert kept.failures() == []


def test_a_version_lifted_at_another_replica_while_it_is_judged_stays_lifted(cluster: Cluster, tmp_path: Path) -> None:
    """This replica has read the earlier evidence, and learns of the lift only through the shared state."""

    class Lifting(RawSamples):
        def ahead(self, *given: Any) -> Any:
            if not lifted:
                lifted.append(kept("b").lift(bad, time.time()))
            return super().ahead(*given)

    def kept(name: str) -> Quarantine:
        shared = SharedMap(api.folder, api.environment)
        return Quarantine(Kept(tmp_path / name), shared, now_s=time.time)

    lifted: list[tuple[int, list[str]]] = []
    bad = Attempt("shop", "digits", "bad")
    with kubernetes_api(tmp_path / "account") as api, closing(Lifting(cluster.url)) as samples:
        releases = Releases(samples, built_in(), kept("a"), url="http://127.0.0.1")
        said = releases.judge(JudgeBody.model_validate(question("bad")))
        assert (said["verdict"], lifted) == ("no_data", [(0, [])])
        assert "failed_s" not in str(api.shared("shop_digits"))
        assert kept("c").failure(bad, "") == (None, [])


def test_a_first_weight_that_flagger_did_not_receive_is_given_again(cluster: Cluster, tmp_path: Path) -> None:
    """Flagger had stopped waiting, and each later question was refused until a person lifted the build."""
    body = {"name": "works", "namespace": "shop", "phase": "Progressing", "checksum": "9"}
    asked = {**body, "metadata": {"profile": "bentoml-app", "to_percent": "50"}}
    with kubernetes_api(tmp_path / "account") as api, ExitStack() as stack:
        share = f"--share={api.folder}"
        one, two = (
            stack.enter_context(judging(tmp_path / name, cluster.url, share, environment=api.environment))
            for name in "ab"
        )
        api.goes_on.clear()  # the answer must not arrive before the client leaves
        url = httpx.URL(one.url)
        with socket.create_connection((url.host, url.port or 0)) as client:
            content = json.dumps(asked)
            head = f"POST /v1/flagger/step?token={TOKEN} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}"
            client.sendall(f"{head}\r\n\r\n{content}".encode())
            eventually(lambda: api.reads)
        api.goes_on.set()
        eventually(lambda: 'answers_total{verdict="no_data"} 1.0' in _HTTP.get(f"{one.url}/metrics").text)
        eventually(lambda: two.ask(asked, path="/v1/flagger/step").status_code == 200)
        for judge in (one, two):
            assert judge.ask(asked, path="/v1/flagger/step").status_code == 409


def test_the_weight_is_held_while_prometheus_is_unreachable(judge: str, cluster: Cluster) -> None:
    """Nothing is aborted, a known failure stays, and afterwards the rollout continues."""
    assert ask(judge, question("bad")).json()["verdict"] == "fail"
    template = manifests(Engine.ARGO, "bentoml", 5, 25)["kanaria-step-digits"]["spec"]["metrics"][0]
    args = {"namespace": "shop", "rollout": "digits", "canary": "good", "stable": STABLE, "to": "25", "token": TOKEN}
    run = AnalysisRun(template, args, judge)
    cluster.stop()
    for _ in range(10):
        assert run.measure() == "Running"
    away = ask(judge, question("good"))
    assert (away.status_code, away.headers["content-type"]) == (503, "application/problem+json")
    assert ask(judge, question("bad")).json()["verdict"] == "fail"
    hook = {"name": "works", "namespace": "shop", "metadata": {"profile": "bentoml-app", "to_percent": "50"}}
    assert ask(judge, hook, path="/v1/flagger/failed").status_code == 503  # not a rollback
    nobody = {"namespace": "shop", "rollout": "digits", "canary": "nobody"}
    lifted = ask(judge, nobody, path="/v1/lift").json()
    assert (lifted["lifted"], "the judge's own clock" in lifted["notes"][0]) == (0, True)
    cluster.start()
    assert run.measure() == "Successful"


def test_a_hanging_prometheus_blocks_nothing_else(cluster: Cluster, tmp_path: Path) -> None:
    """Sixty questions wait for it, none for 30 s; probes, metrics and a version in quarantine do not wait."""
    build = {"name": "breaks", "namespace": "shop", "checksum": "1", "metadata": {"profile": "bentoml-app"}}
    Kept(tmp_path / "judge.db").start(Attempt("shop", "breaks", "breaks", "1"), time.time() - 1500)
    with judging(tmp_path, cluster.url) as replica, ThreadPoolExecutor(60) as callers:
        assert replica.ask(question("bad")).json()["verdict"] == "fail"
        assert replica.ask(build, path="/v1/flagger/failed").status_code == 200
        assert replica.ask(question("good", to_percent=5)).json()["verdict"] == "pass"
        limits = {"timeout": httpx.Timeout(15.0), "headers": {"authorization": f"Bearer {TOKEN}"}}
        with cluster.hanging():
            given = [question("good" if n % 2 else f"other-{n}", to_percent=5) for n in range(60)]
            waiting = [callers.submit(ask, replica.url, each) for each in given]
            eventually(waiting[0].running)
            for path in ("/readyz", "/livez", "/metrics"):
                assert _HTTP.get(f"{replica.url}{path}", **limits).status_code == 200
            found = _HTTP.post(f"{replica.url}/v1/judge", json=question("bad"), **limits)
            assert found.json()["verdict"] == "fail"
            found = _HTTP.post(f"{replica.url}/v1/flagger/failed", json=build, **limits)
            assert found.status_code == 200
            assert not any(each.done() for each in waiting)  # all of them have waited the whole time
            answers = [each.result() for each in waiting]
            assert {answer.status_code for answer in answers} == {503}
            assert max(answer.elapsed.total_seconds() for answer in answers) < 30  # engines wait this long
        eventually(lambda: replica.ask(question("good", to_percent=5)).is_success)


def test_the_documented_lift_works_while_prometheus_hangs(cluster: Cluster, tmp_path: Path) -> None:
    """It uses the judge's own clock, and the command of the page waits for the answer."""
    (command,) = (block.code for block in blocks(Path("docs/kubernetes.md")) if "for pod in" in block.code)
    (program,) = re.findall(r"python -c '(.*?)' shop digits", command, re.DOTALL)
    with judging(tmp_path, cluster.url) as replica:
        program = program.replace("http://127.0.0.1:8091", replica.url).replace("/secrets", str(tmp_path))
        with cluster.hanging():
            run = [sys.executable, "-c", program, "shop", "digits", "7fd54"]
            done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the judge's own clock" in done.stdout


def test_a_question_during_a_reading_shares_its_result(cluster: Cluster, tmp_path: Path) -> None:
    """The second question used to wait for the whole first reading and then for its own."""

    class Held(RawSamples):
        def ahead(self, *given: Any) -> Any:
            readings.append(1)
            assert goes_on.wait(60)
            return super().ahead(*given)

    readings: list[int] = []
    goes_on = threading.Event()
    kept = Quarantine(Kept(tmp_path / "judge.db"), now_s=time.time)
    with closing(Held(cluster.url)) as samples, ThreadPoolExecutor(5) as callers:
        releases = Releases(samples, built_in(), kept, url="http://127.0.0.1")
        first = callers.submit(releases.judge, JudgeBody.model_validate(question("good", to_percent=5)))
        eventually(lambda: readings)
        asked = [JudgeBody.model_validate(question("good", **more)) for more in ({"to_percent": 5}, {}, {})]
        waiting = [callers.submit(releases.judge, each) for each in asked]
        with within(2.0), pytest.raises(SourceUnreachable, match="still being read"):
            releases.judge(asked[0])  # its own deadline counts, not that of the first
        goes_on.set()
        answers = [each.result() for each in (first, *waiting)]
    assert len(readings) == 1
    assert {answer["verdict"] for answer in answers} == {"pass"}
    assert answers[0] == answers[1]  # an answer about harm alone has another text
    assert answers[2] == answers[3]


def test_a_question_that_waits_for_a_failed_reading_gets_its_error(cluster: Cluster, tmp_path: Path) -> None:
    """The next question reads again."""

    class Failing(RawSamples):
        def now_s(self) -> float:
            readings.append(1)
            if len(readings) > 1:
                return super().now_s()
            assert goes_on.wait(60)
            raise SourceUnreachable("it is away", saw="nothing", do="wait")

    readings: list[int] = []
    goes_on = threading.Event()
    kept = Quarantine(Kept(tmp_path / "judge.db"), now_s=time.time)
    asked = JudgeBody.model_validate(question("good", to_percent=5))
    with closing(Failing(cluster.url)) as samples, ThreadPoolExecutor(2) as callers:
        releases = Releases(samples, built_in(), kept, url="http://127.0.0.1")
        first = callers.submit(releases.judge, asked)
        eventually(lambda: readings)
        second = callers.submit(releases.judge, asked)
        with within(2.0), pytest.raises(SourceUnreachable, match="still being read"):
            releases.judge(asked)
        goes_on.set()
        for each in (first, second):
            with pytest.raises(SourceUnreachable, match="it is away"):
                each.result()
        assert releases.judge(asked)["verdict"] == "pass"


def test_a_question_with_time_left_continues_a_reading_that_timed_out(cluster: Cluster, tmp_path: Path) -> None:
    """All questions that shared a reading failed with it, however much time they had."""

    class Slow(RawSamples):
        def asked(self, wanted: Wanted, begin_s: float, end_s: float) -> Any:
            spans.append((begin_s, end_s))
            if len(spans) == 4:  # two looks for the start, and the first half hour, have been read
                reads.set()
                time.sleep(left_s(60))
            return super().asked(wanted, begin_s, end_s)

    def asking(limit_s: float) -> dict[str, Any]:
        with within(limit_s):
            return releases.judge(asked)

    spans: list[tuple[float, float]] = []
    reads = threading.Event()
    kept = Quarantine(Kept(tmp_path / "judge.db"), now_s=time.time)
    asked = JudgeBody.model_validate(question("good", to_percent=5))
    with closing(Slow(cluster.url)) as samples, ThreadPoolExecutor(3) as callers:
        releases = Releases(samples, built_in(), kept, url="http://127.0.0.1")
        first = callers.submit(asking, 8.0)
        assert reads.wait(60)
        patient = [callers.submit(asking, limit_s) for limit_s in (60.0, 120.0)]
        with pytest.raises(SourceUnreachable, match="more samples than could be read in time"):
            first.result()
        assert [each.result()["verdict"] for each in patient] == ["pass", "pass"]
    assert spans[4][0] == spans[3][0] > spans[2][0]


def asked_of(app: Any, asked: Any, *, path: str = "/v1/judge") -> httpx.Response:
    """The answer of an application that runs without a server."""

    async def answered() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post(path, json=asked, headers={"authorization": f"Bearer {TOKEN}"})

    return asyncio.run(answered())


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_question_has_one_deadline(tmp_path: Path, part: str) -> None:
    """The clock is answered at once and the rest byte by byte: engines do not wait for a second answer of the store."""
    clock = {"status": "success", "data": {"resultType": "scalar", "result": [time.time(), f"{time.time()}"]}}
    kind: Literal["head", "body"] = "head" if part == "head" else "body"
    told = json.dumps(clock).encode()
    with dribbling(kind, lambda asked: told if "time%28%29" in asked else None) as server:
        kept = Quarantine(Kept(tmp_path / "judge.db"), now_s=time.time)
        with closing(RawSamples(server.url, timeout_s=60)) as samples:
            releases = Releases(samples, built_in(), kept, url="http://127.0.0.1")
            answer = asked_of(make_app(releases, token=lambda: TOKEN, within_s=2.0), question("good"))
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "ReadTimeout" in answer.json()["detail"]


def test_a_reading_that_timed_out_is_continued(cluster: Cluster, tmp_path: Path) -> None:
    """The next question continues where the first one stopped."""

    class Slow(RawSamples):
        def asked(self, wanted: Wanted, begin_s: float, end_s: float) -> Any:
            spans.append((begin_s, end_s))
            if len(spans) == 4:  # two looks for the start, and the first half hour, have been read
                time.sleep(left_s(60))
            return super().asked(wanted, begin_s, end_s)

    spans: list[tuple[float, float]] = []
    kept = Quarantine(Kept(tmp_path / "judge.db"), now_s=time.time)
    asked = JudgeBody.model_validate(question("good", to_percent=5))
    with closing(Slow(cluster.url)) as samples:
        releases = Releases(samples, built_in(), kept, url="http://127.0.0.1")
        with within(8.0), pytest.raises(SourceUnreachable, match="more samples than could be read in time") as error:
            releases.judge(asked)
        assert "the next question continues from there" in error.value.do
        assert releases.judge(asked)["verdict"] == "pass"
        assert spans[4][0] > spans[2][0]


def test_a_flagger_hook_reads_the_shared_state_once(cluster: Cluster, tmp_path: Path) -> None:
    """Whether the build failed and when it started came from two readings, which could disagree."""
    build = Attempt("shop", "works", "works", "1")
    hook = {"name": "works", "namespace": "shop", "checksum": "1", "metadata": {"profile": "bentoml-app"}}
    with kubernetes_api(tmp_path / "account") as api:
        (tmp_path / "judge").mkdir()
        shared = SharedMap(api.folder, api.environment)
        kept = Quarantine(Kept(tmp_path / "judge/judge.db"), shared, now_s=time.time)
        kept.start(build, lambda: time.time() - 1500)
        share = f"--share={api.folder}"
        with judging(tmp_path / "judge", cluster.url, share, environment=api.environment) as replica:
            for name in ("failed", "promote"):
                before = api.reads, api.writes
                answer = replica.ask(hook, path=f"/v1/flagger/{name}")
                assert answer.status_code in (200, 409), answer.text
                assert (api.reads - before[0], api.writes - before[1]) == (1, 0)


def test_a_flagger_hook_is_judged_once(cluster: Cluster, tmp_path: Path) -> None:
    """This includes the hook that must detect an unknown canary."""

    class Counting(RawSamples):
        def now_s(self) -> float:
            asked.append(1)
            return super().now_s()

    asked: list[int] = []
    kept = Kept(tmp_path / "judge.db")
    kept.start(Attempt("shop", "works", "works", "1"), time.time() - 1500)
    hook = {"name": "works", "namespace": "shop", "checksum": "1", "metadata": {"profile": "bentoml"}}
    samples = Counting(cluster.url)
    releases = Releases(samples, built_in(), Quarantine(kept, now_s=time.time), url="http://127.0.0.1")
    served = make_app(releases, token=lambda: TOKEN)

    def answered(name: str) -> int:
        return asked_of(served, hook | {"name": name}, path="/v1/flagger/failed").status_code

    assert answered("works") == 404  # no canary has these labels
    assert len(asked) == 1
    kept.start(Attempt("shop", "good", "good", "1"), time.time() - 1500)
    assert answered("good") == 409
    assert len(asked) == 2
    samples.close()


def test_only_replicas_of_the_same_namespace_are_listed(
    tmp_path: Path, require_program: Callable[[str], str], cluster: Cluster
) -> None:
    """The URL names it: the same Prometheus may read other teams' judges. The list is bounded."""
    lines = []
    for namespace, releases_there in (("kanaria", 250), ("team-b", 3)):
        for n in range(releases_there):
            labels = (
                f'namespace="{namespace}",pod="kanaria-judge-1",release="{namespace}/r{n}",canary="c",verdict="pass"'
            )
            lines += [f"kanaria_judge_verdict{{{labels}}} 1 {time.time() + at_s:.3f}" for at_s in range(-60, 300, 30)]
    fill(tmp_path / "store", lines, require_program("promtool"))
    with running(tmp_path / "store", cluster.prometheus) as url:
        for page_url, shown, own in (
            ("http://kanaria-judge.kanaria.svc:8091", 200, 200),
            ("http://judge.team-b.svc.cluster.local:8091", 3, 0),
            ("http://localhost:8091", 200, 200),
        ):
            samples, kept = RawSamples(url), Quarantine(Kept(tmp_path / "judge.db"), now_s=time.time)
            found = Releases(samples, built_in(), kept, url=page_url).elsewhere()
            samples.close()
            assert (len(found), sum(each.release.startswith("kanaria/") for each in found)) == (shown, own)


def test_only_replicas_of_the_same_job_are_listed(
    tmp_path: Path, require_program: Callable[[str], str], cluster: Cluster
) -> None:
    """Two judges in one namespace may judge versions with equal names; a replica that is not scraped knows no job."""
    times = [time.time() + at_s for at_s in range(-60, 300, 30)]
    verdicts, own = [], []
    for job, of_pods, releases_there in (("kanaria/judge", "judge", 2), ("kanaria/other", "other", 3)):
        where = f'namespace="kanaria",job="{job}",pod="{of_pods}'
        for n in range(releases_there):
            labels = f'{where}-1",release="{of_pods}/r{n}",canary="c",verdict="pass"'
            verdicts += [f"kanaria_judge_verdict{{{labels}}} 1 {at_s:.3f}" for at_s in times]
        own += [f'kanaria_judge_releases{{{where}-0"}} 0 {at_s:.3f}' for at_s in times]
    fill(tmp_path / "store", verdicts + own, require_program("promtool"))
    with running(tmp_path / "store", cluster.prometheus) as url, closing(RawSamples(url)) as samples:
        kept = Quarantine(Kept(tmp_path / "judge.db"), now_s=time.time)
        for page_url in ("http://kanaria-judge.kanaria.svc:8091", "http://localhost:8091"):
            for pod, shown in (("judge-0", {"judge"}), ("other-0", {"other"}), ("nobody-0", {"judge", "other"})):
                found = Releases(samples, built_in(), kept, url=page_url, pod=pod).elsewhere()
                assert {each.release.partition("/")[0] for each in found} == shown


def test_a_release_that_is_no_longer_asked_about_is_not_shown(cluster: Cluster, tmp_path: Path) -> None:
    """It disappears after an hour, even if no other question comes."""
    samples = RawSamples(cluster.url)
    kept = Quarantine(Kept(tmp_path / "judge.db"), now_s=time.time)
    releases = Releases(samples, built_in(), kept, url="http://127.0.0.1")
    releases.judge(JudgeBody.model_validate(question("young")))
    samples.close()
    (known,) = releases.all()
    known.asked_s -= 3601
    assert releases.all() == []


def test_pages_are_bounded_with_any_number_of_failures(judge: str, cluster: Cluster, tmp_path: Path) -> None:
    """The newest are shown and all are counted; an older failure still has its page."""
    kept, old = Kept(tmp_path / "judge.db"), Attempt("shop", "old", "v0")
    answer = ask(judge, question("bad")).json()
    for at_s, attempt in enumerate([old, *(Attempt("shop", "digits", f"v{n}") for n in range(300))]):
        kept.keep(Failure(attempt, float(at_s), answer))
    with judging(tmp_path, cluster.url) as replica:
        page = _HTTP.get(replica.url).text
        assert page.count('<span class="badge fail">') == 200
        assert "and 101 more" in page
        assert "v299" in page
        assert "shop/old" not in page
        assert _HTTP.get(f"{replica.url}/releases/shop/old/v0").status_code == 200
        assert "kanaria_judge_quarantined 301.0" in _HTTP.get(f"{replica.url}/metrics").text


@pytest.mark.parametrize(
    ("asked", "verdict", "words"),
    [
        (question("unknown"), "no_data", ["no requests of the canary unknown", 'hash="unknown"']),
        (question(STABLE), "no_data", ["the same version"]),
        (
            question("good", stable="unknown"),
            "no_data",
            ["no series of stable", 'hash="unknown"'],
        ),
        (question("twice"), "no_data", ["each event would count twice", "prometheus_replica=a and b"]),
        (question("young", to_percent=25), "inconclusive", ["more canary requests"]),
    ],
    ids=["unknown", "same version", "unknown stable", "two replicas", "too few requests"],
)
def test_a_question_that_cannot_be_judged_is_explained(
    judge: str, asked: dict[str, Any], verdict: str, words: list[str]
) -> None:
    """The answer is always a 200 with an object, and its reason names what to look at."""
    answer = ask(judge, asked)
    said = answer.json()
    assert (answer.status_code, said["verdict"]) == (200, verdict), said
    for each in words:
        assert each in said["reason"]


def test_a_canary_that_has_just_stopped_is_reported(judge: str, cluster: Cluster) -> None:
    """Its series remain for some minutes; the results of its last requests are unknown."""
    gone = question(f"gone-{(time.time() - cluster.began_s) // _GONE_EVERY_S:.0f}")
    said = ask(judge, gone).json()
    assert said["verdict"] == "no_data", said
    for each in ("the newest sample of canary is", "scraped every 5 s"):
        assert each in said["reason"]


def test_the_watch_continues_when_stable_is_gone(judge: str) -> None:
    """With all traffic, a version is compared with earlier failures; for a step there is nothing to compare with."""
    said = ask(judge, question("calm", stable="calm-before")).json()
    assert said["verdict"] == "pass", said
    assert ask(judge, question("calm", stable="calm-before", to_percent=100)).json()["verdict"] == "no_data"
    assert ask(judge, question("late", stable="late-before")).json()["verdict"] == "fail"


def test_an_answer_says_what_is_missing(judge: str) -> None:
    """The answer gives the number of further requests and the time."""
    said = ask(judge, question("young", to_percent=25)).json()
    assert said["next"]["requests"] > 0
    assert said["next"]["seconds"] > 0
    assert {"errors", "latency:100"} <= said["signals"].keys()


def test_windows_grow_to_the_scrape_interval(judge: str) -> None:
    """If pods are scraped once a minute, windows of five seconds would be empty; the answer mentions this."""
    said = ask(judge, question("slow-1", stable="slow-0", to_percent=25)).json()
    assert said["verdict"] in ("pass", "inconclusive"), said
    (note,) = said["notes"]
    assert note == "pods are scraped every 60 s, so windows are 3 min long and not 5 s: each holds 3 scrapes"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (question("good", to_percent=""), "leave out `to_percent`"),
        (question("good", to_percent="all"), "write the next weight in percent"),
        (question("good", to_percent=0), "to_percent"),
        *(
            (question("good", to_percent=text), "to_percent")
            for text in ("1_0", "\uff11\uff10", "1e2", "1e-300", " 5", "5.%")
        ),
        (question("good", namespace="shop/.."), "namespace"),
        (question("good", rollout="../digits"), "rollout"),
        (question("good", rollout="Digits"), "lower-case letters"),
        (question("a/../b"), "canary"),
        (question("good", to_percent=True), "to_percent"),
        (question("good", profile="nothing"), "ask with one of: bentoml"),
        (question("go`od"), "canary"),
        (question(""), "canary"),
        (question("good", weight=3), "weight"),
        (question("good", plan={"signals": {"predictions": {}, "wrong_label": {}}}), "`predictions`, `wrong_label`"),
        (question("good", plan={"alpha": 3}), "alpha"),
        (question("good", plan={"sticky": "header:x-user", "require": "better"}), "`sticky`, `require: better`"),
        (question("good", plan="steps: ["), "plan is not YAML"),
        (question("good", plan="[" * 20_000), "plan is nested too deeply"),
        (question("good", plan=f"[{'a,' * 10_000}]"), "at most 20,000 characters"),
        (question("good", plan={"signals": ["a"] * 10_000}), "at most 20,000 characters"),
        (question("good", plan=[]), "write a plan as an object, or as a text in YAML"),
        (question("good", plan={"signals": {"latency": {"slower_than_ms": [3]}}}), "the gateway counts at ["),
        ([], "body"),
        (None, "body"),
    ],
)
def test_an_invalid_question_is_refused_with_the_reason(judge: str, asked: Any, words: str) -> None:
    """The status is 422, and there is no verdict."""
    answer = ask(judge, asked)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert words in answer.text


def test_a_long_question_is_refused(judge: str) -> None:
    """It is refused before all of it is kept."""
    assert ask(judge, question("good", plan="#" * 200_000)).status_code == 413


def test_the_token_is_required_and_may_change(judge: str, state: Path) -> None:
    """A cluster secret is changed in place; if it is missing or too short, no one is let in and the error names it."""
    token, another = state / "token", "another-one-of-twenty-letters"
    assert ask(judge, question("good"), token="wrong").status_code == 401
    token.write_text(another)
    assert ask(judge, question("good")).status_code == 401
    assert ask(judge, question("good"), token=another).status_code == 200
    token.write_text("abc")
    short = ask(judge, question("good"), token="abc")
    assert (short.status_code, "with 3 characters" in short.text) == (503, True)
    token.unlink()
    assert ask(judge, question("good"), token=another).status_code == 503
    token.write_text(TOKEN)
    metrics = _HTTP.get(f"{judge}/metrics").text
    assert 'kanaria_judge_refused_total{reason="question",status="401"} 2.0' in metrics


@pytest.mark.parametrize(
    ("header", "status"), [(f"bearer {TOKEN}", 200), (f"BEARER  {TOKEN}", 200), (TOKEN, 401), (f"Basic {TOKEN}", 401)]
)
def test_the_scheme_of_the_authorization_header_follows_http(judge: str, header: str, status: int) -> None:
    """Upper and lower case are equal, and the scheme is required."""
    headers = {"authorization": header}
    answer = _HTTP.post(f"{judge}/v1/judge", json=question("good"), headers=headers, timeout=60)
    assert answer.status_code == status


def refused(url: str, reason: str) -> float:
    page = _HTTP.get(f"{url}/metrics").text
    lines = [line for line in page.splitlines() if f'kanaria_judge_refused_total{{reason="{reason}"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@pytest.mark.parametrize(
    ("method", "path", "status", "counted"),
    [
        ("POST", "/v1/judge/", 404, 1),
        ("POST", "/judge", 404, 1),
        ("GET", "/v1/judge", 405, 1),
        ("POST", "/v1/flagger/stop", 404, 1),
        ("GET", "/favicon.ico", 404, 0),
    ],
)
def test_an_unknown_route_is_reported_and_counted(
    judge: str, method: str, path: str, status: int, counted: int
) -> None:
    """An engine with a typing error in its URL would wait silently. A browser's request for an icon is not counted."""
    before = refused(judge, "route")
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = _HTTP.request(method, f"{judge}{path}", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert "/v1/judge, /v1/windows" in answer.json()["do"]
    assert refused(judge, "route") == before + counted


def test_a_judge_with_a_damaged_ledger_is_not_ready(cluster: Cluster, tmp_path: Path) -> None:
    """It stays alive, and every question, page and probe names the problem."""
    with judging(tmp_path, cluster.url) as replica:
        ledger = tmp_path / "judge.db"
        ledger.write_bytes(b"garbage " * 1000)
        for path in ("/readyz", "/releases/shop/digits/good"):
            answer = _HTTP.get(f"{replica.url}{path}")
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert str(ledger) in answer.json()["detail"]
        assert replica.ask(question("good")).status_code == 503
        assert _HTTP.get(f"{replica.url}/livez").status_code == 200
        assert refused(replica.url, "page") == 2


def test_the_judge_accepts_the_names_of_its_service(cluster: Cluster, tmp_path: Path) -> None:
    """These are all names in the cluster; another name is refused with the option that allows it."""
    with judging(tmp_path, cluster.url, "--url=http://kanaria-judge.kanaria.svc:8091") as replica:
        for name in ("kanaria-judge", "kanaria-judge.kanaria", "kanaria-judge.kanaria.svc.cluster.local"):
            assert _HTTP.get(replica.url, headers={"host": f"{name}:8091"}).status_code == 200
        foreign = _HTTP.get(replica.url, headers={"host": "judge.example.com"})
        assert (foreign.status_code, "--url" in foreign.text) == (421, True)
        assert "controller" not in foreign.text


def test_the_token_in_the_query_works_beside_the_header_of_a_mesh(judge: str) -> None:
    """The header may belong to the mesh; a wrong token in the query does not override the right one in the header."""
    mesh = {"authorization": "Basic bWVzaDptZXNo"}
    for query, headers, status in (
        (TOKEN, mesh, 200),
        ("wrong", mesh, 401),
        ("wrong", {"authorization": f"Bearer {TOKEN}"}, 200),
    ):
        answer = _HTTP.post(f"{judge}/v1/judge?token={query}", json=question("good"), headers=headers, timeout=60)
        assert answer.status_code == status


def test_answers_to_flagger_are_counted(judge: str) -> None:
    """They are counted by verdict and time, like those to Argo Rollouts."""

    def counted() -> tuple[float, float]:
        page = _HTTP.get(f"{judge}/metrics").text
        values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        answers = sum(float(value) for name, value in values.items() if name.startswith("kanaria_judge_answers_total"))
        return answers, float(values["kanaria_judge_answer_seconds_count"])

    before = counted()
    body = {"name": "works", "namespace": "shop", "checksum": "1"}
    asked = {**body, "metadata": {"profile": "bentoml-app", "to_percent": "50"}}
    for hook in ("step", "promote", "failed"):
        ask(judge, asked, path=f"/v1/flagger/{hook}")
    assert counted() == (before[0] + 3, before[1] + 3)


def test_the_log_has_flaggers_events_and_no_secret(judge: str, state: Path) -> None:
    """Webhooks contain all of a Canary's metadata."""
    told = {"eventMessage": "Starting canary analysis " + "x" * 1000, "eventType": "Normal", "token": "S3CRET"}
    body = {"name": "works", "namespace": "shop", "phase": "Progressing", "metadata": told}
    assert ask(judge, body, path="/v1/flagger/event").status_code == 200
    log = (state / "log").read_text()
    assert "Starting canary analysis" in log
    assert "S3CRET" not in log
    assert "x" * 500 not in log


def test_windows_of_a_ci_job_are_judged(judge: str) -> None:
    """The lines are those of `kanaria judge`."""
    counts = {"stable": {"bad": 3, "total": 812}, "canary": {"bad": 30, "total": 90}}
    ends_s = [1_700_000_000 + 5 * number for number in range(5)]
    each = [{"end_s": end_s, "window_s": 5, "signal": "errors", **counts} for end_s in ends_s]
    lines = "".join(f"{json.dumps(line)}\n" for line in each)
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = _HTTP.post(f"{judge}/v1/windows?weight=5", content=lines, headers=headers)
    assert answer.json()["verdict"] == "fail"
    wrong = _HTTP.post(f"{judge}/v1/windows", content=lines + "{}", headers=headers)
    assert (wrong.status_code, "line 6" in wrong.text) == (422, True)


def test_explain_names_the_query_that_finds_nothing(cluster: Cluster) -> None:
    """The most common fault is a label that the series do not have."""
    command = [sys.executable, "-m", "kanaria", "judge", "explain", f"--prometheus={cluster.url}", "--namespace=shop"]
    command += ["--profile=bentoml", f"--stable={STABLE}"]
    found = subprocess.run([*command, "--canary=good"], capture_output=True, text=True, check=False)
    assert "2 pods" in found.stdout, found
    assert "scraped every 5 s" in found.stdout
    missing = subprocess.run([*command, "--canary=god"], capture_output=True, text=True, check=False)
    assert missing.returncode == 3
    assert "errors, god: nothing" in missing.stdout
    assert 'with namespace shop, rollouts_pod_template_hash is missing, or is "bad" or ' in missing.stdout
    twice = subprocess.run([*command, "--canary=twice"], capture_output=True, text=True, check=False)
    assert (twice.returncode, "each event would count twice" in twice.stdout) == (3, True), twice
    wrong = subprocess.run([*command, "--canary=a/../b"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, "--canary is not a name" in wrong.stderr) == (2, True), wrong


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        ({}, ["--namespace=prod"], 'of bentoml_service_request_total, namespace is "shop"'),
        ({}, ["--profile=istio"], "there is no series istio_requests_total: check whether the pods are scraped"),
        ({"rollouts_pod_template_hash": ""}, [], "with namespace shop, rollouts_pod_template_hash is missing"),
        (
            {"endpoint": "/livez"},
            [],
            "its series exist, but none of them counts: check what the profile leaves out",
        ),
    ],
    ids=["namespace", "profile", "no pod label", "left out"],
)
def test_explain_names_the_label_that_does_not_match(
    tmp_path: Path, require_program: Callable[[str], str], labels: dict[str, str], options: list[str], words: str
) -> None:
    """It compares with what exists under the name of the series."""
    known = {"namespace": "shop", "pod": "p", "rollouts_pod_template_hash": "v2"} | labels
    series = f"bentoml_service_request_total{{{','.join(f'{key}={json.dumps(text)}' for key, text in known.items())}}}"
    lines = [f"{series} 1 {time.time() + at_s:.3f}" for at_s in range(-60, 300, 5)]
    fill(tmp_path, lines, require_program("promtool"))
    with running(tmp_path, require_program("prometheus")) as url:
        command = ["judge", "explain", f"--prometheus={url}", "--namespace=shop", "--profile=bentoml"]
        done = CliRunner().invoke(app, [*command, "--stable=v1", "--canary=v2", *options])
    assert (done.exit_code, words in done.output) == (3, True), done.output


@pytest.mark.parametrize(
    ("prometheus", "token", "words"),
    [
        ("localhost:9090", TOKEN, "--prometheus http://localhost:9090"),
        ("ftp://x", TOKEN, "--prometheus http://x"),
        ("http://", TOKEN, "not the URL of a Prometheus"),
        ("http://localhost:nine", TOKEN, "not the URL of a Prometheus"),
        ("http://localhost:9090", "\n", "token is too short"),
        ("http://localhost:9090", "secret", "with 6 characters"),
        ("http://localhost:9090", None, "token cannot be read"),
    ],
)
def test_an_unusable_start_option_is_named(tmp_path: Path, prometheus: str, token: str | None, words: str) -> None:
    """The exit code is 2, before the judge listens."""
    if token is not None:
        (tmp_path / "token").write_text(token)
    options = ["--prometheus", prometheus, "--token-file", str(tmp_path / "token")]
    done = CliRunner().invoke(app, ["judge", "serve", *options])
    assert (done.exit_code, words in done.output) == (2, True), done.output


@pytest.mark.parametrize(("ahead_s", "words"), [(120, "behind the judge's"), (-120, "ahead of the judge's")])
def test_a_prometheus_whose_clock_is_two_minutes_off_is_reported(
    cluster: Cluster, tmp_path: Path, ahead_s: int, words: str
) -> None:
    """Prometheus's clock is used for samples, failures and the start of a build."""
    (tmp_path / "shift").write_text(str(ahead_s))
    path = os.pathsep.join([str(ROOT / "tests/chaos/clock"), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "CHAOS_CLOCK": str(tmp_path / "shift")}
    with judging(tmp_path / "judge", cluster.url, environment=environment) as replica:
        said = replica.ask(question("good", to_percent="25")).json()
        assert said["verdict"] == "pass", said
        assert any("Prometheus's clock is" in note and words in note for note in said["notes"])
        assert replica.ask(question("young", to_percent="25")).json()["verdict"] == "inconclusive"
        assert replica.ask(question("bad")).json()["verdict"] == "fail"
        lifted = {"namespace": "shop", "rollout": "digits", "canary": "bad"}
        assert replica.ask(lifted, path="/v1/lift").json() == {"lifted": 1}
        assert replica.ask(question("bad")).json()["verdict"] == "no_data"
        hook = {"name": "works", "namespace": "shop", "checksum": "1", "metadata": {"profile": "bentoml-app"}}
        assert replica.ask(hook, path="/v1/flagger/failed").status_code == 409
    kept = Kept(tmp_path / "judge/judge.db")
    for began_s in (
        kept.started_s(Attempt("shop", "digits", "bad")),
        kept.started_s(Attempt("shop", *["works"] * 2, "1")),
    ):
        assert began_s is not None
        assert abs(began_s - time.time()) < 60


def halves(lines: list[str], begin_s: float) -> tuple[list[str], list[str]]:
    """Of samples every 2.5 s, those that each of two Prometheus saw that scrape every 5 s."""
    found: tuple[list[str], list[str]] = ([], [])
    for line in lines:
        found[round((float(line.rpartition(" ")[2]) - begin_s) / 2.5) % 2].append(line)
    return found


def test_a_store_that_merges_two_replicas_is_judged_only_if_it_deduplicates(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Two Prometheus scrape the same pods and a third reads from both: with named replicas each event counts twice."""
    prometheus, promtool = require_program("prometheus"), require_program("promtool")
    begin_s = float(round(time.time()) - 1500)
    hash_of = "rollouts_pod_template_hash"
    pods = [
        Pod({"pod": f"s{n}", hash_of: STABLE}, begin_s - 1200, begin_s + 1800, per_scrape=10, before=90) for n in "ab"
    ]
    for name, ratio in (("good", 0.0), ("bad", 0.15)):
        pods.append(Pod({"pod": name, hash_of: name}, begin_s, begin_s + 1800, per_scrape=10, error_ratio=ratio))
    both = halves(openmetrics(SHAPE, pods, interval_s=2.5), begin_s)
    with ExitStack() as stack:
        for named in (False, True):
            urls = []
            for name, lines in zip("ab", both, strict=True):
                folder = tmp_path / f"{name}{named}"
                fill(folder, lines, promtool)
                outside = {"prometheus_replica": name} if named else {}
                config = {"global": {"external_labels": outside}}
                urls.append(stack.enter_context(running(folder, prometheus, config=config)))
            read = {"remote_read": [{"url": f"{url}/api/v1/read", "read_recent": True} for url in urls]}
            (tmp_path / f"front{named}").mkdir()
            front = stack.enter_context(running(tmp_path / f"front{named}", prometheus, config=read))
            judge = stack.enter_context(judging(tmp_path / f"judge{named}", front))
            good, bad = (judge.ask(question(name, to_percent=25)).json() for name in ("good", "bad"))
            if named:
                assert (good["verdict"], bad["verdict"]) == ("no_data", "no_data")
                assert "prometheus_replica=a and b" in good["reason"]
            else:
                assert (good["verdict"], bad["verdict"]) == ("pass", "fail"), (good, bad)
                counted = good["signals"]["errors"]["canary"][1]
                expected = 10 * (time.time() - begin_s) / 2.5
                assert 0.95 * expected < counted <= expected + 20  # each request is counted once
