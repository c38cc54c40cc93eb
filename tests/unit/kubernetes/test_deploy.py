"""deploy/kubernetes: every manifest is valid, kustomize builds the overlays, and its parts agree with each other."""

import re
import shutil
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from kanaria.kubernetes.argo import METRIC
from kanaria.kubernetes.flagger import PLACEHOLDER
from kanaria.kubernetes.parts import HASH
from kanaria.kubernetes.wanted import JUDGE_URL, SECRET, SECRET_KEY
from monitoring.addresses import JUDGE
from rollout.server.metrics import JudgeMetrics
from rollout.server.questions import FlaggerBody, JudgeBody
from rollout.server.shared_map import CONFIG_MAP
from rollout.sources.profiles import profiles
from tests.support.crds import all_faults, documents, faults, need_schemas
from tests.support.kubernetes_example import DEPLOY, MODELS, store, write
from tests.support.markdown import blocks

TOKEN = "twenty-letters-or-more"  # noqa: S105 - of a test
BASE = DEPLOY / "base"
FILES = [
    path
    for path in sorted(DEPLOY.rglob("*.yaml"))
    if path.name != "kustomization.yaml" and path.parent.name != "profiles"
]


def manifests(*paths: Path) -> list[dict[str, Any]]:
    return [document for path in paths for document in documents(path.read_text())]


def one(kind: str, found: list[dict[str, Any]], name: str | None = None) -> dict[str, Any]:
    (manifest,) = (each for each in found if each["kind"] == kind and name in (None, each["metadata"]["name"]))
    return manifest


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_manifest_is_valid(path: Path) -> None:
    """Kinds of Argo Rollouts, Flagger, Gateway API and prometheus-operator, and the pods of Kubernetes's own kinds."""
    need_schemas()
    assert all_faults(manifests(path)) == []


def test_a_misspelt_field_is_found() -> None:
    """The check itself would find one, in a custom resource and in the pods of the judge."""
    need_schemas()
    template = deepcopy(manifests(MODELS["argo"] / "analysis.yaml")[0])
    template["spec"]["metrics"][0]["sucessCondition"] = template["spec"]["metrics"][0].pop("successCondition")
    assert any("sucessCondition" in fault for fault in faults(template))
    judge = deepcopy(one("StatefulSet", manifests(BASE / "judge.yaml")))
    judge["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    assert any("readinesProbe" in fault for fault in faults(judge))


@pytest.fixture
def built(tmp_path: Path, require_program: Callable[[str], str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`kubectl kustomize` of an overlay, in a copy with a token."""
    kubectl = require_program("kubectl")
    said = subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"v1\.(\d+)\.|Minor:\"(\d+)", said)
    if version and int(version[1] or version[2]) < 21:
        pytest.skip(f"this kubectl has a kustomize from 2019: {said.strip()}")

    def build(overlay: str, *, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
        copy = tmp_path / "kubernetes"
        shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("token"), dirs_exist_ok=True)
        if token:
            (copy / "overlays" / overlay / "token").write_text(token)
        command = [kubectl, "kustomize", str(copy / "overlays" / overlay)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return build


@pytest.mark.parametrize("overlay", ["argo", "flagger"])
def test_kustomize_builds_an_overlay(overlay: str, built: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """All of it is valid, each object is in the namespace of its owner, and the judge finds its token and profiles."""
    need_schemas()
    done = built(overlay)
    assert done.returncode == 0, done.stderr
    found = documents(done.stdout)
    assert all_faults(found) == []
    assert {each["metadata"].get("namespace") for each in found if each["kind"] != "Namespace"} == {"kanaria", "shop"}
    assert {each["metadata"]["name"] for each in found if each["kind"] == "Namespace"} == {"kanaria", "shop"}
    secrets = [each for each in found if each["kind"] == "Secret"]
    assert {each["metadata"]["namespace"] for each in secrets} == {"kanaria"} | (
        {"shop"} if overlay == "argo" else set()
    )
    assert all(each["metadata"]["name"] == SECRET and SECRET_KEY in each["data"] for each in secrets)
    volumes = {each["name"]: each for each in one("StatefulSet", found)["spec"]["template"]["spec"]["volumes"]}
    assert volumes["token"]["secret"]["secretName"] == SECRET
    assert volumes["profiles"]["configMap"]["name"] == one("ConfigMap", found)["metadata"]["name"]
    assert one("PrometheusRule", found)["spec"]["groups"]


def test_nothing_is_built_without_a_token(built: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """There is no token that everybody knows: kustomize names the file that is missing."""
    done = built("argo", token=None)
    assert done.returncode != 0
    assert "token" in done.stderr


@pytest.mark.parametrize("engine", sorted(MODELS))
def test_the_digits_are_what_the_command_writes(engine: str, tmp_path: Path) -> None:
    """If this fails, run `python -m tests.support.kubernetes_example`."""
    write(store(tmp_path / "bentoml"), engine, tmp_path / "out")
    committed, written = (
        {path.name: path.read_text() for path in folder.iterdir()} for folder in (MODELS[engine], tmp_path / "out")
    )
    assert committed == written


class NoReleases:
    """A judge that was not asked yet."""

    def all(self) -> list[Any]:
        return []

    def quarantined(self) -> int:
        return 0


def test_the_alerts_read_metrics_that_the_judge_exports() -> None:
    """With the labels that they have; the others are those of Argo Rollouts and Flagger."""
    known = {
        sample.name: sample.labels
        for family in JudgeMetrics(NoReleases()).registry.collect()
        for sample in family.samples
    }
    for rule in one("PrometheusRule", manifests(BASE / "rules.yaml"))["spec"]["groups"][0]["rules"]:
        read = re.findall(r"(kanaria_\w+)(?:\{(\w+)=)?", rule["expr"])
        assert read
        for name, label in read:
            assert name in known
            assert not label or label in known[name]


def test_the_alerts_look_for_the_metric_of_the_analyses() -> None:
    """Argo Rollouts exports the phase of each metric of an analysis by its name."""
    (rules,) = one("PrometheusRule", manifests(BASE / "rules.yaml"))["spec"]["groups"]
    asked = [name for rule in rules["rules"] for name in re.findall(r'metric="([^"]*)"', rule["expr"])]
    named = {
        metric["name"]
        for template in manifests(MODELS["argo"] / "analysis.yaml")
        for metric in template["spec"]["metrics"]
    }
    assert asked
    assert set(asked) == named == {METRIC}


def test_what_the_manifests_ask_is_what_the_judge_understands() -> None:
    """Bodies, profiles and hooks."""
    known = profiles(BASE / "profiles")
    for template in manifests(MODELS["argo"] / "analysis.yaml"):
        body = template["spec"]["metrics"][0]["provider"]["web"]["jsonBody"]
        filled = {
            key: "25" if key == "to_percent" else text.strip("{}").removeprefix("args.") for key, text in body.items()
        }
        assert JudgeBody.model_validate(filled).profile in known
    for hook in one("Canary", manifests(MODELS["flagger"] / "canary.yaml"))["spec"]["analysis"]["webhooks"]:
        asked = FlaggerBody(name="digits", namespace="shop", metadata=hook.get("metadata", {}))
        if hook["type"] in ("confirm-traffic-increase", "confirm-promotion", "rollback"):
            assert asked.question().profile in known


def test_the_profiles_of_the_base_are_all_in_its_kustomization() -> None:
    """`kanaria kubernetes render` takes their names for known."""
    (generator,) = yaml.safe_load((BASE / "kustomization.yaml").read_text())["configMapGenerator"]
    assert sorted(generator["files"]) == sorted(f"profiles/{path.name}" for path in (BASE / "profiles").iterdir())


def test_the_parts_agree_on_addresses_and_names() -> None:
    """The judge's URL, its port, its token, and the label that tells versions apart."""
    judge = manifests(BASE / "judge.yaml")
    container = one("StatefulSet", judge)["spec"]["template"]["spec"]["containers"][0]
    service = one("Service", judge)
    name, namespace = (service["metadata"][key] for key in ("name", "namespace"))
    (port,) = service["spec"]["ports"]
    assert f"http://{name}.{namespace}.svc:{port['port']}" == JUDGE_URL == JUDGE
    assert f"--url={JUDGE_URL}" in container["args"]
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "token")
    assert f"--token-file={mount['mountPath']}/{SECRET_KEY}" in container["args"]
    assert HASH.replace("-", "_") in profiles()["service"].versions
    assert len(PLACEHOLDER) < 20  # so that a judge refuses it


def with_component(name: str, folder: Path, require_program: Callable[[str], str]) -> list[dict[str, Any]]:
    """What kustomize builds of Flagger's overlay with a component."""
    overlay = folder / "kubernetes/overlays/flagger/kustomization.yaml"
    shutil.copytree(DEPLOY, folder / "kubernetes", dirs_exist_ok=True)
    overlay.write_text(f"{overlay.read_text()}components: [../../components/{name}]\n")
    (overlay.parent / "token").write_text(TOKEN)
    command = [require_program("kubectl"), "kustomize", str(overlay.parent)]
    return documents(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_replicas_share_failures_where_an_overlay_says_so(
    built: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Otherwise the judge has no account. With the component it may change one ConfigMap of its namespace."""
    alone = documents(built("argo").stdout)
    pod = one("StatefulSet", alone)["spec"]["template"]["spec"]
    assert (pod["automountServiceAccountToken"], pod.get("serviceAccountName")) == (False, None)
    found = with_component("shared", tmp_path, require_program)
    pod = one("StatefulSet", found)["spec"]["template"]["spec"]
    account = one("ServiceAccount", found)["metadata"]
    assert (pod["automountServiceAccountToken"], pod["serviceAccountName"]) == (True, account["name"])
    assert pod["containers"][0]["args"][-1] == "--share=/var/run/secrets/kubernetes.io/serviceaccount"
    assert not [each["kind"] for each in found if each["kind"].startswith("Cluster")]
    role, binding = one("Role", found), one("RoleBinding", found)
    assert {each["metadata"]["namespace"] for each in (role, binding)} == {account["namespace"]} == {"kanaria"}
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", role["metadata"]["name"])
    (rule,) = role["rules"]
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (["configmaps"], [CONFIG_MAP], ["get", "patch"])
    (shared,) = (each for each in found if each["kind"] == "ConfigMap" and each["metadata"]["name"] == CONFIG_MAP)
    assert (shared["metadata"]["namespace"], "data" in shared) == ("kanaria", False)  # or an apply would empty it
    policy, before = (one("NetworkPolicy", each)["spec"]["egress"] for each in (found, alone))
    assert policy == [*before, {"ports": [{"port": 443}, {"port": 6443}]}]


def test_the_documented_overlay_adds_what_replicas_share(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """The block of the page, built where the page puts it."""
    (block,) = (block.code for block in blocks(Path("docs/kubernetes.md")) if "components/shared" in block.code)
    shutil.copytree(DEPLOY, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/overlays/shared"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(block)
    command = [require_program("kubectl"), "kustomize", str(overlay)]
    found = documents(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert one("StatefulSet", found)["spec"]["template"]["spec"]["containers"][0]["args"][-1].startswith("--share=")
    assert one("Role", found)


def test_the_judge_keeps_to_the_restricted_standard_and_its_limits() -> None:
    """Its namespace takes no pod that does not, its two replicas go to two nodes, and it reaches what it asks alone."""
    judge = manifests(BASE / "judge.yaml")
    labels = one("Namespace", judge)["metadata"]["labels"]
    assert labels == {"pod-security.kubernetes.io/enforce": "restricted"}
    pod = one("StatefulSet", judge)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    own = container["securityContext"]
    assert (own["allowPrivilegeEscalation"], own["capabilities"]["drop"]) == (False, ["ALL"])
    as_whom = pod["securityContext"]
    assert (as_whom["runAsNonRoot"], as_whom["seccompProfile"]["type"]) == (True, "RuntimeDefault")
    assert as_whom["runAsUser"] == as_whom["runAsGroup"] == as_whom["fsGroup"]
    assert container["resources"]["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == one("StatefulSet", judge)["spec"]["selector"]["matchLabels"]
    policy = one("NetworkPolicy", judge)["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (asked,) = (urlsplit(arg.partition("=")[2]) for arg in container["args"] if arg.startswith("--prometheus="))
    assert asked.hostname is not None
    reached = {
        (rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], rule["ports"][0]["port"])
        for rule in policy["egress"]
        if "to" in rule
    }
    assert reached == {(asked.hostname.split(".")[1], asked.port)}


def test_no_folder_of_a_model_is_without_a_limit() -> None:
    """A model that fills its folders loses its pod, not the node."""
    for kind, path in (
        ("Rollout", MODELS["argo"] / "rollout.yaml"),
        ("Deployment", MODELS["flagger"] / "deployment.yaml"),
    ):
        volumes = one(kind, manifests(path))["spec"]["template"]["spec"]["volumes"]
        assert all("sizeLimit" in each["emptyDir"] for each in volumes)
