"""`kanaria kubernetes render`: valid manifests for whatever is wanted, and a clear sentence where it cannot be."""

import re
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kanaria.errors import SetupError
from kanaria.kubernetes import rendered
from kanaria.kubernetes.paths import Match, below
from kanaria.kubernetes.tokens import read_token
from kanaria.kubernetes.wanted import Engine, Gateway, Wanted, parse_steps
from tests.support.crds import all_faults, documents, need_schemas
from tests.support.kubernetes_example import render, store
from tests.support.typed import typed

TOKEN = "twenty-letters-or-more"  # noqa: S105 - of a test
WEB = Gateway("edge", "web")
NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?", fullmatch=True)


def wanted(**keys: Any) -> Wanted:
    usual: dict[str, Any] = {
        "tag": "digits:v2",
        "name": "digits",
        "namespace": "shop",
        "image": "digits:v2",
        "port": 3000,
        "replicas": 4,
        "profile": "service",
        "engine": Engine.ARGO,
    }
    return Wanted(**usual | keys)


def typed_render(environment: Mapping[str, str], *arguments: str) -> CompletedProcess[str]:
    return typed(environment, "kubernetes", "render", *arguments)


def of_kind(kind: str, text: str) -> list[dict[str, Any]]:
    return [each for each in documents(text) if each["kind"] == kind]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    engine=st.sampled_from(Engine),
    name=NAMES,
    namespace=NAMES,
    port=st.integers(1, 65535),
    replicas=st.integers(2, 1000),
    steps=st.sets(st.integers(1, 99), min_size=1, max_size=8),
    has_gateway=st.booleans(),
    token=st.none() | st.from_regex(r"[!-~]{20,40}", fullmatch=True),
    hostnames=st.lists(st.from_regex(r"(\*\.)?[a-z]{1,9}(\.[a-z0-9]{1,9}){1,3}", fullmatch=True), max_size=3),
)
def test_whatever_is_wanted_is_valid(
    *,
    engine: Engine,
    name: str,
    namespace: str,
    port: int,
    replicas: int,
    steps: set[int],
    has_gateway: bool,
    token: str | None,
    hostnames: list[str],
) -> None:
    """By the schemas of all kinds; all in one namespace, which is said."""
    need_schemas()
    gateway = WEB if has_gateway or engine is Engine.FLAGGER else None
    made = wanted(
        engine=engine,
        name=name,
        namespace=namespace,
        port=port,
        replicas=replicas,
        steps=tuple(sorted(steps)),
        gateway=gateway,
        token=token,
        hostnames=tuple(hostnames) if gateway else (),
    )
    found = documents(rendered.text(made))
    assert all_faults(found) == []
    assert {each["metadata"]["namespace"] for each in found} == {namespace}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"name": "Digits"}, "use --name digits, or another"),
        ({"name": "fraud_detector.v2"}, "use --name fraud-detector-v2, or another"),
        ({"name": "3d-net"}, "use --name model-3d-net, or another"),
        ({"name": "-"}, "use --name model, or another"),
        ({"name": "d" * 49 + "-x"}, f"use --name {'d' * 49}, or another"),
        ({"image": f"digits:{'v' * 129}"}, "this is not a valid image"),
        ({"name": "d" * 51}, "the model's name is not valid in Kubernetes"),
        ({"name": ""}, "the model's name is not valid in Kubernetes"),
        ({"namespace": "my_shop"}, "this is not a valid namespace"),
        ({"image": "digits v2"}, "this is not a valid image"),
        ({"image": "https://registry.example.com/digits:v2"}, "this is not a valid image"),
        ({"image": "digits"}, "the image has no version"),
        ({"image": "localhost:5000/digits"}, "the image has no version"),
        ({"image": "digits:latest"}, "the image has no version"),
        ({"port": 0}, "this is not a valid port"),
        ({"replicas": 0}, "this is not a valid number of pods"),
        ({"steps": (25, 5)}, "the steps are not rising weights"),
        ({"steps": (5, 5)}, "the steps are not rising weights"),
        ({"steps": (5, 100)}, "the steps are not rising weights"),
        ({"steps": ()}, "the steps are not rising weights"),
        ({"engine": Engine.FLAGGER}, "Flagger needs a gateway to set weights"),
        ({"replicas": 1}, "one pod cannot split the traffic"),
        ({"judge_url": "kanaria-judge:8091"}, "this is not a valid URL of a judge"),
        ({"judge_url": "http://judge:port"}, "this is not a valid URL of a judge"),
        ({"judge_url": "http://user:word@judge:8091"}, "this is not a valid URL of a judge"),
        ({"judge_url": "http://judge:8091/?a=1#x"}, "this is not a valid URL of a judge"),
        ({"judge_url": "http://judge\n:8091"}, "this is not a valid URL of a judge"),
        ({"judge_url": "http://judge:8091/{{args.token}}"}, "this is not a valid URL of a judge"),
        ({"judge_url": "http://judge:99999"}, "this is not a valid URL of a judge"),
        ({"image": "digits:v\u0665"}, "this is not a valid image"),
        ({"token": "short"}, "the token is too short"),
        ({"token": "twenty letters and more\nin a second line"}, "not one line of printable ASCII"),
        ({"token": "twenty letters, of which one is \xe9"}, "not one line of printable ASCII"),
        ({"hostnames": ("shop.example.com",)}, "need a gateway's route"),
        ({"paths": (Match("/v1"),)}, "need a gateway's route"),
        ({"gateway": WEB, "hostnames": ("https://shop.example.com",)}, "this is not a valid host name"),
        ({"gateway": WEB, "hostnames": ("10.0.0.1",)}, "this is not a valid host name"),
        ({"gateway": WEB, "paths": ()}, "the route has no path"),
        ({"gateway": WEB, "paths": tuple(Match(f"/{each}") for each in range(65))}, "the route has too many paths"),
    ],
)
def test_what_no_cluster_would_take_is_refused(keys: dict[str, Any], words: str) -> None:
    """With what was seen and what to do."""
    with pytest.raises(SetupError, match=words) as refused:
        wanted(**keys)
    assert refused.value.saw
    assert refused.value.do


@pytest.mark.parametrize("image", ["digits:v2", "localhost:5000/shop/digits:v2", f"digits@sha256:{'0' * 64}"])
def test_images_with_a_version_are_taken(image: str) -> None:
    """With and without a registry, by tag or by digest."""
    assert f"image: {image}" in rendered.text(wanted(image=image))


@pytest.mark.parametrize("text", ["", "five", "5,,25", "5.5,25", "\u0665,\u0662\u0665", "1_0", "+5", "5,25,"])
def test_steps_that_are_no_numbers_are_refused(text: str) -> None:
    """Argo Rollouts and Flagger take whole percents."""
    with pytest.raises(SetupError, match="not rising weights"):
        parse_steps(text)


@pytest.mark.parametrize(
    ("replicas", "steps", "weights"),
    [
        (10, (5, 25), (10, 20, 100)),  # one pod, two pods
        (4, (5, 25), (25, 100)),  # one pod is both
        (3, (10, 50), (34, 67, 100)),
        (2, (5, 95), (50, 100)),  # two pods would be all the traffic
        (100, (5, 25), (5, 25, 100)),
    ],
)
def test_without_a_gateway_weights_are_numbers_of_pods(
    replicas: int, steps: tuple[int, ...], weights: tuple[int, ...]
) -> None:
    """The judge is asked about no smaller weight than the pods will have."""
    made = wanted(replicas=replicas, steps=steps)
    assert made.weights == weights
    (rollout,) = of_kind("Rollout", rendered.text(made))
    canary = rollout["spec"]["strategy"]["canary"]
    assert "trafficRouting" not in canary
    asked = [
        arg["value"]
        for step in canary["steps"]
        if "analysis" in step
        for arg in step["analysis"]["args"]
        if arg["name"] == "to"
    ]
    assert asked == [str(weight) for weight in weights[1:]]


def test_every_weight_is_asked_about_before_it_is_set() -> None:
    """With a gateway: 5, then 25 and 100 after a pass each, then the watch."""
    (rollout,) = of_kind("Rollout", rendered.text(wanted(gateway=WEB)))
    steps = rollout["spec"]["strategy"]["canary"]["steps"]
    said = [
        step["setWeight"]
        if "setWeight" in step
        else (
            step["analysis"]["templates"][0]["templateName"],
            {arg["name"]: arg["value"] for arg in step["analysis"]["args"] if "value" in arg},
        )
        for step in steps
    ]
    assert said == [
        5,
        ("kanaria-step-digits", {"to": "25"}),
        25,
        ("kanaria-step-digits", {"to": "100"}),
        100,
        ("kanaria-watch-digits", {"count": "40"}),
    ]


def test_models_share_a_namespace(tmp_path: Path) -> None:
    """What belongs to one model replaces nothing of another's, which asks by another profile."""
    need_schemas()
    for engine in Engine:
        names = [
            {(each["kind"], each["metadata"]["name"]) for each in documents(rendered.text(made))}
            for made in (
                wanted(engine=engine, gateway=WEB),
                wanted(engine=engine, gateway=WEB, name="text", profile="bentoml"),
            )
        ]
        assert names[0].isdisjoint(names[1])


def test_a_folder_is_written_once(tmp_path: Path) -> None:
    """Again it changes nothing; with other options what differs is written."""
    folder = tmp_path / "a" / "b"
    assert set(rendered.write(wanted(), folder).values()) == {True}
    assert set(rendered.write(wanted(), folder).values()) == {False}
    changed = rendered.write(wanted(replicas=6, steps=(50,)), folder)
    assert [path.name for path, is_changed in changed.items() if is_changed] == ["rollout.yaml"]


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """And no other file is written beside it."""
    (tmp_path / "rollout.yaml").write_text("kind: Rollout\n")
    with pytest.raises(SetupError, match="not written by this command"):
        rendered.write(wanted(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rollout.yaml"]


def test_a_token_is_quoted_and_its_file_is_the_owners_alone(tmp_path: Path) -> None:
    """Flagger's hooks carry it in their URLs."""
    made = wanted(engine=Engine.FLAGGER, gateway=WEB, token="twenty letters & more")
    rendered.write(made, tmp_path)
    (canary,) = of_kind("Canary", (tmp_path / "canary.yaml").read_text())
    urls = [hook["url"] for hook in canary["spec"]["analysis"]["webhooks"]]
    assert all(url.endswith("?token=twenty%20letters%20%26%20more") for url in urls)
    assert (tmp_path / "canary.yaml").stat().st_mode & 0o077 == 0


def test_a_folder_that_others_could_read_is_closed_when_it_gets_a_token(tmp_path: Path) -> None:
    """It was written without one first, and stays closed. Git is told to ignore the file."""
    made = {"engine": Engine.FLAGGER, "gateway": WEB}
    rendered.write(wanted(**made), tmp_path)
    canary = tmp_path / "canary.yaml"
    canary.chmod(0o644)
    rendered.write(wanted(**made, token=TOKEN), tmp_path)
    assert canary.stat().st_mode & 0o077 == 0
    assert canary.read_text().count(TOKEN) == 4
    assert "/canary.yaml" in (tmp_path / ".gitignore").read_text().splitlines()
    canary.chmod(0o644)
    changed = rendered.write(wanted(**made, token=TOKEN), tmp_path)
    assert [path.name for path, is_changed in changed.items() if is_changed] == ["canary.yaml"]
    assert canary.stat().st_mode & 0o077 == 0


def test_what_git_ignores_already_is_left_alone(tmp_path: Path) -> None:
    """A `.gitignore` of a person's own stays as it is."""
    (tmp_path / ".gitignore").write_text("*.yaml\n")
    rendered.write(wanted(engine=Engine.FLAGGER, gateway=WEB, token=TOKEN), tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "*.yaml\n"


def test_manifests_of_another_engine_do_not_stay(tmp_path: Path) -> None:
    """`canary.yaml` would stay there with its token: the folder is refused, and nothing is written."""
    rendered.write(wanted(engine=Engine.FLAGGER, gateway=WEB, token=TOKEN), tmp_path)
    with pytest.raises(SetupError, match="manifests of another engine") as refused:
        rendered.write(wanted(), tmp_path)
    assert "canary.yaml" in refused.value.saw
    assert not (tmp_path / "rollout.yaml").exists()


def test_a_question_that_usually_waits_says_nothing_in_the_chat() -> None:
    """Flagger alerts on each answer that is no 200, unless the hook is muted."""
    (canary,) = of_kind("Canary", rendered.text(wanted(engine=Engine.FLAGGER, gateway=WEB)))
    muted = {hook["type"] for hook in canary["spec"]["analysis"]["webhooks"] if hook.get("muteAlert")}
    assert muted == {"confirm-traffic-increase", "confirm-promotion"}


def test_a_build_waits_only_where_an_alert_sees_it() -> None:
    """Before `confirm-rollout` a canary looks like one that rests, also where no judge answers it."""
    (canary,) = of_kind("Canary", rendered.text(wanted(engine=Engine.FLAGGER, gateway=WEB)))
    kinds = {hook["type"] for hook in canary["spec"]["analysis"]["webhooks"]}
    assert kinds == {"confirm-traffic-increase", "confirm-promotion", "rollback", "event"}


def test_no_pod_may_claim_labels_of_another() -> None:
    """What Prometheus knows of a pod counts, not what its page says; each engine's label tells versions apart."""
    told_by = {}
    for engine in Engine:
        (monitor,) = of_kind("PodMonitor", rendered.text(wanted(engine=engine, gateway=WEB)))
        assert not any(each.get("honorLabels") for each in monitor["spec"]["podMetricsEndpoints"])
        told_by[engine] = monitor["spec"]["podTargetLabels"]
    assert told_by == {Engine.ARGO: ["rollouts-pod-template-hash"], Engine.FLAGGER: ["app"]}


def test_a_route_takes_what_the_model_answers_and_no_more(tmp_path: Path) -> None:
    """By the Bento: its routes; those with a part in braces and applications with all below. No metrics, no probes."""
    own = {
        "services": [{"name": "text"}],
        "schema": {
            "routes": [{"route": "/summarize", "output": {}}, {"route": "/items/{id}", "output": {}}],
            "paths": {"/v1": {"mounted": True}},
        },
    }
    common = ("text:v7", "--gateway", "edge/web", "--hostname", "text.example.com", "--engine")
    environment = store(tmp_path, tag="text:v7", manifest=own)
    done = typed_render(environment, *common, "argo")
    (route,) = of_kind("HTTPRoute", done.stdout)
    (rule,) = route["spec"]["rules"]
    assert route["spec"]["hostnames"] == ["text.example.com"]
    assert [tuple(match["path"].values()) for match in rule["matches"]] == [
        ("Exact", "/summarize"),
        ("PathPrefix", "/items"),
        ("PathPrefix", "/v1"),
    ]
    assert "the route" not in done.stderr
    (canary,) = of_kind("Canary", typed_render(environment, *common, "flagger").stdout)
    assert canary["spec"]["service"]["hosts"] == ["text.example.com"]
    assert canary["spec"]["service"]["match"] == [
        {"uri": {"exact": "/summarize"}},
        {"uri": {"prefix": "/items"}},
        {"uri": {"prefix": "/v1"}},
    ]
    (route,) = of_kind("HTTPRoute", typed_render(environment, *common, "argo", "--path", "/v2").stdout)
    assert route["spec"]["rules"][0]["matches"] == [{"path": {"type": "PathPrefix", "value": "/v2"}}]


@pytest.mark.parametrize("path", ["predict", "/a//b", "/a/../b", "/a/..", "/a b", "/a?b", ""])
def test_what_is_no_path_is_refused(path: str) -> None:
    """As the Gateway API does."""
    with pytest.raises(SetupError, match="this is not a valid path"):
        below(path)


@pytest.mark.parametrize("path", ["/", "/metrics"])
def test_a_route_that_takes_metrics_is_said(path: str, tmp_path: Path) -> None:
    """And one that takes all hosts."""
    done = typed_render(store(tmp_path), "digits:v2", "--engine", "argo", "--gateway", "edge/web", "--path", path)
    said = re.sub(r"\s+", " ", done.stderr)
    assert "/metrics" in said
    assert "all hosts of the gateway" in said


@pytest.mark.parametrize("content", [bytes(range(128, 158)), b"twenty letters and more\nin a second line\n", b""])
def test_a_file_with_no_token_is_refused(content: bytes, tmp_path: Path) -> None:
    """In words, without showing it."""
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(SetupError, match="the token is") as refused:
        read_token(tmp_path / "token")
    assert "twenty" not in str(refused.value)


def test_the_command_reads_the_bento(tmp_path: Path) -> None:
    """Name, image and newest version by its tag; its port, and by which profile it is judged."""
    own = {
        "entry_service": "text",
        "services": [{"name": "text", "config": {"http": {"port": 4000}}}],
        "schema": {"routes": []},
    }
    done = render(store(tmp_path, tag="text:v7", manifest=own), "text", "--engine", "argo")
    assert done.returncode == 0, done.stderr
    (rollout,) = of_kind("Rollout", done.stdout)
    (container,) = rollout["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["ports"][0]["containerPort"]) == ("text:v7", 4000)
    step, _ = of_kind("AnalysisTemplate", done.stdout)
    assert step["spec"]["metrics"][0]["provider"]["web"]["jsonBody"]["profile"] == "bentoml"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("digit:v2", "--engine", "argo"), "there is no Bento digit:v2; did you mean `digits:v2`?"),
        (("digits:v2", "--engine", "argo", "--profile", "servce"), "did you mean `service`?"),
        (("digits:v2", "--engine", "argo", "--profile", "istio"), "cannot tell two versions apart"),
        (
            ("digits:v2", "--engine", "flagger", "--gateway", "a/b", "--profile", "bentoml"),
            "use one of: bentoml-app,",
        ),
        *(
            (
                ("digits:v2", "--engine", engine, "--gateway", "a/b", "--profile", profile),
                f"it uses the label {label}, which",
            )
            for engine in Engine
            for profile, label in (("envoy-gateway", "envoy_cluster_name"), ("gateway", "version"))
        ),
        (("digits:v2", "--engine", "flagger", "--gateway", "web"), "write its namespace and name"),
        (("digits:v2", "--engine", "argo", "--token-file", "no-such"), "no-such"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    """In one sentence, with exit code 2, and nothing on the output."""
    done = typed_render(store(tmp_path), *arguments)
    assert re.sub(r"\s+", " ", done.stderr).count(words) == 1, done.stderr
    assert (done.stdout, done.returncode in (2, 3)) == ("", True)


def test_a_placeholder_is_said(tmp_path: Path) -> None:
    """Without a token Flagger's hooks would be refused."""
    done = typed_render(store(tmp_path), "digits:v2", "--engine", "flagger", "--gateway", "shop/web")
    assert done.returncode == 0
    assert "replace it by the judge's token" in re.sub(r"\s+", " ", done.stderr)
    assert "token=THE-TOKEN" in done.stdout


@pytest.mark.parametrize(
    ("engine", "words"), [("argo", "the analyses read the Secret"), ("flagger", "keep it out of Git")]
)
def test_the_command_says_where_a_token_is(engine: str, words: str, tmp_path: Path) -> None:
    """Flagger's manifests have it; Argo's read it from a Secret."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    done = typed_render(
        store(tmp_path / "home"),
        *("digits:v2", "--engine", engine, "--gateway", "a/b", "--token-file", str(tmp_path / "token")),
    )
    assert words in re.sub(r"\s+", " ", done.stderr)
    assert (TOKEN in done.stdout) is (engine == "flagger")


def test_the_command_says_what_has_to_be_there(tmp_path: Path) -> None:
    """Argo Rollouts aborts at once where an analysis cannot read its Secret."""
    done = typed_render(store(tmp_path), "digits:v2", "--engine", "argo", "--namespace", "shop")
    said = re.sub(r"\s+", " ", done.stderr)
    assert "kubectl --namespace shop create secret generic kanaria-judge --from-file token=FILE` once" in said
    assert "a file without a newline" in said
