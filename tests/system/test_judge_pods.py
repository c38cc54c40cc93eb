"""Real BentoML pods behind a real Envoy, read by a real Prometheus: simulated engines change the weight.

All tests share one cluster and continue where the previous one left it.
"""

import copy
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kanaria.kubernetes.wanted import Engine
from kanaria.stack.ports import free_port
from tests.support.cluster import Pod, Route, Scraper, Users, hash_labels, probing
from tests.support.engines import ArgoRollout, FlaggerCanary
from tests.support.judges import TOKEN, Judge, judging
from tests.support.kubernetes_api import kubernetes_api
from tests.support.rendered import manifests
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("judge", "serve")

# Only the answers of the cluster's pods are judged: this machine has two cores for all of them.
PLAN = {"risk_budget": "5%", "signals": {"latency": None}}
FASTER = 60.0  # times as fast as Argo Rollouts and Flagger, which ask every 15 s
LONGEST_S = 400.0


@dataclass
class Cluster:
    """What an engine finds in a cluster."""

    folder: Path
    route: Route
    prometheus: Scraper
    users: Users
    replicas: tuple[Judge, Judge]
    pods: list[Pod] = field(default_factory=list)
    behind: dict[str, list[Pod]] = field(default_factory=lambda: {"stable": [], "canary": []})

    def pod(self, name: str, version: str, app: str, *arguments: str) -> Pod:
        """A pod that is starting."""
        pod = Pod(name, hash_labels(version, app), f"127.0.0.{2 + len(self.pods)}", self.folder, arguments, free_port())
        self.pods.append(pod)
        pod.start()
        return pod

    def serve(self, group: str, *pods: Pod) -> None:
        """Wait for pods, and make them the endpoints of a group."""
        for pod in pods:
            pod.wait()
        self.behind[group] = list(pods)
        self.route.point(stable=self.behind["stable"], canary=self.behind["canary"])
        self.prometheus.scrape(self.pods)

    def ask(self, canary: str, replica: int = 0, **more: Any) -> dict[str, Any]:
        asked = {"namespace": "shop", "rollout": "colours", "canary": canary, "stable": "v1", "profile": "bentoml"}
        answer = self.replicas[replica].ask(asked | {"plan": PLAN} | more)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def same_answers(self, canary: str) -> dict[str, Any]:
        """The answer of both replicas between the ends of two windows."""
        for _ in range(100):
            one, other, again = (self.ask(canary, replica, to_percent=25) for replica in (0, 1, 0))
            if one == again:
                assert {**one, "report": ""} == {**other, "report": ""}
                return one
        raise AssertionError("a window ended each time")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    for name in ("route", "prometheus"):
        (folder / name).mkdir()
    route, prometheus = Route(folder / "route"), Scraper(folder / "prometheus", require_program("prometheus"))
    users = Users(route.url, {"red": picture("RGB", (200, 30, 30)), "grey": picture("L", 120)}, per_s=80)
    is_over = threading.Event()
    with ExitStack() as stack:
        api = stack.enter_context(kubernetes_api(folder / "account"))
        share = f"--share={api.folder}"
        replicas = tuple(
            stack.enter_context(judging(folder / name, prometheus.url, share, environment=api.environment))
            for name in "ab"
        )
        made = Cluster(folder, route, prometheus, users, (replicas[0], replicas[1]))
        stack.callback(lambda: [pod.stop() for pod in made.pods])
        stable = [made.pod(f"colours-v1-{each}", "v1", "colours-primary") for each in "ab"]
        made.pod("colours-v2-a", "v2", "colours-v2", "by=most")
        made.pod("colours-v3-a", "v3", "colours", "converts=false")
        stack.enter_context(route.running(require_program("envoy")))
        prometheus.start()
        stack.callback(prometheus.stop)
        made.serve("stable", *stable)
        kubelet = threading.Thread(target=probing, args=(lambda: made.pods, is_over))
        kubelet.start()
        stack.callback(kubelet.join)
        stack.callback(is_over.set)
        stack.enter_context(users)
        yield made


def picture(mode: str, colour: Any) -> bytes:
    content = io.BytesIO()
    Image.new(mode, (16, 16), colour).save(content, "PNG")
    return content.getvalue()


def drive(engine: ArgoRollout | FlaggerCanary, cluster: Cluster, until: Callable[[], bool]) -> None:
    """Let an engine ask both replicas in turn, and the route follow it."""
    deadline, turn = time.monotonic() + LONGEST_S, 0
    while not until():
        assert time.monotonic() < deadline, engine
        engine.base_url = cluster.replicas[turn % 2].url
        if isinstance(engine, ArgoRollout):
            engine.reconcile()
        else:
            engine.tick()
        cluster.route.set(engine.weight)
        turn += 1
        time.sleep(15 / FASTER)


def test_probes_are_not_requests_to_a_canary(cluster: Cluster) -> None:
    """The kubelet probes every pod: a canary without users would pass on these answers."""
    version_3 = next(pod for pod in cluster.pods if pod.labels["app"] == "colours")
    cluster.serve("canary", version_3)
    counted_nothing = "no requests on canary"  # BentoML's series exist from the start, at 0
    eventually(lambda: counted_nothing in cluster.ask("v3", to_percent=25)["reason"], within_s=120)
    said = cluster.same_answers("v3")
    assert (said["verdict"], counted_nothing in said["reason"]) == ("no_data", True), said


def test_argo_promotes_a_good_version_despite_failures(cluster: Cluster) -> None:
    """A judge is killed, a pod is restarted, the autoscaler adds one, and Prometheus is down for a while."""
    version_2 = next(pod for pod in cluster.pods if pod.labels["app"] == "colours-v2")
    cluster.serve("canary", version_2)
    argo = argo_rollout(cluster, "v2", 5, 25)
    drive(argo, cluster, lambda: requests_of(argo) > 0)
    assert argo.weight == 5

    before = cluster.same_answers("v2")
    cluster.replicas[0].kill()
    cluster.replicas[0].start()
    after = cluster.same_answers("v2")
    assert after["since"] == before["since"]
    assert after["signals"]["errors"]["canary"][1] >= requests_of(argo)

    drive(argo, cluster, lambda: argo.weight == 25)
    added = cluster.pod("colours-v2-b", "v2", "colours-v2", "by=most")  # as the autoscaler does
    cluster.serve("canary", version_2, added)
    cluster.serve("canary", added)
    version_2.stop()
    version_2.start()
    cluster.serve("canary", version_2, added)

    cluster.prometheus.stop()
    for _ in range(12):  # two minutes: after an error Argo Rollouts asks again every 10 s
        argo.reconcile()
    assert argo.background.errors_in_a_row >= 12
    assert (argo.state, argo.weight) == ("progressing", 25)
    cluster.prometheus.start()
    drive(argo, cluster, lambda: argo.state != "progressing")
    assert (argo.state, argo.weight) == ("promoted", 100), argo.background.measurements[-1]
    assert cluster.users.answers.keys() <= {200, 503}  # 503: the pod was stopped during the request


def requests_of(argo: ArgoRollout) -> int:
    """The canary requests that were judged when the background analysis last asked."""
    last = argo.background.measurements[-1:]
    return int(last[0]["signals"].get("errors", {"canary": [0, 0]})["canary"][1]) if last else 0


def with_plan(template: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(template)
    changed["spec"]["metrics"][0]["provider"]["web"]["jsonBody"]["plan"] = PLAN
    return changed


def test_flagger_rolls_back_a_failing_version(cluster: Cluster) -> None:
    """The version cannot name pictures without colours."""
    version_3 = next(pod for pod in cluster.pods if pod.labels["app"] == "colours")
    cluster.route.set(0)
    cluster.serve("canary", version_3)
    flagger = FlaggerCanary(flagger_manifest(), cluster.replicas[0].url, "build-3", TOKEN, "colours")
    flagger.tick()
    flagger.tick()
    assert (flagger.phase, flagger.weight) == ("Progressing", 10), flagger.said  # without traffic nothing can be judged
    flagger.tick()
    assert flagger.weight == 10, flagger.said  # without a request there is no second weight
    drive(flagger, cluster, lambda: flagger.phase in ("Succeeded", "Failed"))
    assert (flagger.phase, flagger.weight) == ("Failed", 0), flagger.said
    assert "canary requests failed" in flagger.said[-1]
    hooks = flagger_manifest()["spec"]["analysis"]["webhooks"]
    metadata = next(hook["metadata"] for hook in hooks if hook["type"] == "rollback")
    hook = {"name": "colours", "namespace": "shop", "checksum": "build-3", "phase": "Progressing", "metadata": metadata}
    again = [replica.ask(hook, path="/v1/flagger/failed").status_code for replica in cluster.replicas]
    assert again == [200, 200]  # also from the replica that was not asked when it failed: it is in the ConfigMap


def test_argo_rolls_back_one_failing_pod_of_ten(cluster: Cluster) -> None:
    """The weights are numbers of pods: one of ten gets a tenth of the traffic."""
    cluster.route.set(0)
    for pod in cluster.pods:
        if pod.labels["app"] != "colours-primary":
            pod.stop()
    added = [cluster.pod(f"colours-v1-{each}", "v1", "colours-primary") for each in "cdefghi"]
    failing = cluster.pod("colours-v4-a", "v4", "colours-v4", "converts=false")
    cluster.serve("stable", *cluster.behind["stable"], *added)
    cluster.serve("canary", failing)
    assert [len(cluster.behind[group]) for group in ("stable", "canary")] == [9, 1]
    argo = argo_rollout(cluster, "v4", 10)
    drive(argo, cluster, lambda: argo.state != "progressing")
    assert (argo.state, argo.weight) == ("aborted", 0)
    assert "canary requests failed" in argo.background.measurements[-1]["reason"]
    one, other = (cluster.ask("v4", replica) for replica in (0, 1))
    assert (one["verdict"], one["reason"]) == (other["verdict"], other["reason"])


def argo_rollout(cluster: Cluster, canary: str, *steps: int) -> ArgoRollout:
    found = manifests(Engine.ARGO, "bentoml", *steps)
    templates = {name: with_plan(found[name]) for name in ("kanaria-step-digits", "kanaria-watch-digits")}
    facts = {"Latest": canary, "Stable": "v1", "metadata.name": "colours", "metadata.namespace": "shop", "token": TOKEN}
    return ArgoRollout(found["Rollout"], templates, facts, cluster.replicas[0].url)


def flagger_manifest() -> dict[str, Any]:
    changed = copy.deepcopy(manifests(Engine.FLAGGER, "bentoml-app", 10, 20, 50)["Canary"])
    for hook in changed["spec"]["analysis"]["webhooks"]:
        hook.setdefault("metadata", {})["plan"] = json.dumps(PLAN)
    return changed
