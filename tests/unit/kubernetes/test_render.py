"""`kanaria kubernetes render`: valid manifests for whatever is wanted, and a clear sentence where it cannot be."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kanaria.errors import SetupError
from kanaria.kubernetes import rendered
from kanaria.kubernetes.wanted import Engine, Gateway, Wanted, parse_steps
from tests.support.crds import all_faults, documents, need_schemas
from tests.support.kubernetes_example import render, store

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
    token=st.none() | st.text(min_size=20, max_size=40),
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
) -> None:
    """By the schemas of all kinds; all in one namespace, which is said."""
    need_schemas()
    gateway = Gateway("edge", "web") if has_gateway or engine is Engine.FLAGGER else None
    made = wanted(
        engine=engine,
        name=name,
        namespace=namespace,
        port=port,
        replicas=replicas,
        steps=tuple(sorted(steps)),
        gateway=gateway,
        token=token,
    )
    found = documents(rendered.text(made))
    assert all_faults(found) == []
    assert {each["metadata"]["namespace"] for each in found} == {namespace}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"name": "Digits"}, "the model's name is none for Kubernetes"),
        ({"name": "d" * 51}, "the model's name is none for Kubernetes"),
        ({"name": ""}, "the model's name is none for Kubernetes"),
        ({"namespace": "my_shop"}, "that is no namespace"),
        ({"image": "digits v2"}, "that is no image"),
        ({"image": "https://registry.example.com/digits:v2"}, "that is no image"),
        ({"image": "digits"}, "the image has no version"),
        ({"image": "localhost:5000/digits"}, "the image has no version"),
        ({"image": "digits:latest"}, "the image has no version"),
        ({"port": 0}, "that is no port"),
        ({"replicas": 0}, "so many pods cannot be"),
        ({"steps": (25, 5)}, "the steps are no rising weights"),
        ({"steps": (5, 5)}, "the steps are no rising weights"),
        ({"steps": (5, 100)}, "the steps are no rising weights"),
        ({"steps": ()}, "the steps are no rising weights"),
        ({"engine": Engine.FLAGGER}, "Flagger moves no weights without a gateway"),
        ({"replicas": 1}, "one pod cannot share the traffic"),
        ({"judge_url": "kanaria-judge:8091"}, "that is no URL of a judge"),
        ({"judge_url": "http://judge:port"}, "that is no URL of a judge"),
        ({"token": "short"}, "the token is too short"),
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


@pytest.mark.parametrize("text", ["", "five", "5,,25", "5.5,25"])
def test_steps_that_are_no_numbers_are_refused(text: str) -> None:
    """Argo Rollouts and Flagger take whole percents."""
    with pytest.raises(SetupError, match="no rising weights"):
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
    (rollout,) = of_kind("Rollout", rendered.text(wanted(gateway=Gateway("edge", "web"))))
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
        ("kanaria-step", {"to": "25"}),
        25,
        ("kanaria-step", {"to": "100"}),
        100,
        ("kanaria-watch", {"count": "40"}),
    ]


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
    made = wanted(engine=Engine.FLAGGER, gateway=Gateway("edge", "web"), token="twenty letters & more")
    rendered.write(made, tmp_path)
    (canary,) = of_kind("Canary", (tmp_path / "canary.yaml").read_text())
    urls = [hook["url"] for hook in canary["spec"]["analysis"]["webhooks"]]
    assert all(url.endswith("?token=twenty%20letters%20%26%20more") for url in urls)
    assert (tmp_path / "canary.yaml").stat().st_mode & 0o077 == 0


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
        (("digits:v2", "--engine", "flagger", "--gateway", "web"), "write its namespace and its name"),
        (("digits:v2", "--engine", "argo", "--token-file", "no-such"), "no-such"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    """In one sentence, with exit code 2, and nothing on the output."""
    done = render(store(tmp_path), *arguments)
    assert re.sub(r"\s+", " ", done.stderr).count(words) == 1, done.stderr
    assert (done.stdout, done.returncode in (2, 3)) == ("", True)


def test_a_placeholder_is_said(tmp_path: Path) -> None:
    """Without a token Flagger's hooks would be refused."""
    done = render(store(tmp_path), "digits:v2", "--engine", "flagger", "--gateway", "shop/web")
    assert done.returncode == 0
    assert "put the judge's token in its place" in re.sub(r"\s+", " ", done.stderr)
    assert "token=THE-TOKEN" in done.stdout
