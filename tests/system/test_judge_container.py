"""The image of the judge, built from deploy/Containerfile and run with the arguments of deploy/kubernetes."""

import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.support.containers import LAST, OFFLINE, Container, Podman, download_wheels
from tests.support.kubernetes_example import DEPLOY
from tests.support.paths import ROOT

pytestmark = pytest.mark.timeout(900)  # the image is built with the CPU time that other tests leave

TOKEN = "twenty-letters-or-more"  # noqa: S105 - of a test
ABSENT = ("cc", "gcc", "make", "git", "pip", "uv", "apt-get")
(POD,) = (
    each["spec"]["template"]["spec"]
    for each in yaml.safe_load_all((DEPLOY / "base/judge.yaml").read_text())
    if each["kind"] == "StatefulSet"
)
(JUDGE,) = POD["containers"]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[Podman]:
    require_program("podman")
    made = Podman(tmp_path_factory.mktemp("podman"))
    yield made
    made.remove_all()


@pytest.fixture(scope="module")
def image(podman: Podman, base_image: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image, built without a registry and without a package index inside the build."""
    wheels = tmp_path_factory.mktemp("wheels")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["judge"]
    download_wheels(wheels, *wanted, *project["build-system"]["requires"])
    podman.import_base(base_image)
    options = [word for name, value in OFFLINE for word in (f"--{name}", value.format(wheels=wheels))]
    build = ["podman", "build", *options, "--file", "deploy/Containerfile", "--tag", JUDGE["image"], "."]
    subprocess.run([*LAST, *build], cwd=ROOT, env=podman.environment, check=True)
    return str(JUDGE["image"])


@pytest.fixture(scope="module")
def server(podman: Podman, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The container of the manifest, with its arguments and mounts, on another address and port."""
    secrets = tmp_path_factory.mktemp("secrets")
    secrets.chmod(0o755)
    (secrets / "token").write_text(TOKEN)
    folders = {"token": ("--volume", f"{secrets}:{{path}}:ro"), "ledger": ("--tmpfs", "{path}")}
    folders["profiles"] = ("--volume", f"{DEPLOY / 'base/profiles'}:{{path}}:ro")
    mounts = [
        word.format(path=mount["mountPath"]) for mount in JUDGE["volumeMounts"] for word in folders[mount["name"]]
    ]
    command = [*JUDGE["args"], "--host=127.0.0.1", "--port={port}"]  # the last value of an option counts
    with podman.run(image, *mounts, command=command) as container:
        yield container


def test_it_serves_and_requires_a_token(server: Container) -> None:
    """Without a token it answers 401; with it the question is read, and Prometheus is missing."""
    asked = {"namespace": "shop", "rollout": "digits", "canary": "b", "stable": "a", "profile": "bentoml-app"}
    url = f"{server.url}/v1/judge"
    assert httpx.post(url, json=asked, timeout=60).status_code == 401
    answer = httpx.post(url, json=asked, headers={"authorization": f"Bearer {TOKEN}"}, timeout=60)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")


def test_it_has_its_pages_metrics_and_runbooks(server: Container) -> None:
    """The templates, the style sheet and the runbooks are in the image."""
    for path, words in (
        ("/", "has not been asked about any release"),
        ("/metrics", "kanaria_judge_"),
        ("/runbooks", 'id="kanariajudgeaway"'),
    ):
        assert words in httpx.get(server.url + path, timeout=60).raise_for_status().text
    assert httpx.get(f"{server.url}/static/style.css", timeout=60).is_success


def test_it_runs_as_an_unprivileged_user_with_a_read_only_root(server: Container) -> None:
    """It is the manifest's user, even if nothing sets it; only the ledger's volume can be written."""
    assert server.sh("id -u") == str(POD["securityContext"]["runAsUser"])
    status = dict(line.split(":\t", 1) for line in server.sh("cat /proc/self/status").splitlines())
    assert (int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, "1")
    folders = "/ /app /etc /var /secrets /profiles /ledger"
    assert (
        server.sh(f"for folder in {folders}; do touch $folder/x 2>/dev/null && echo $folder; done; true") == "/ledger"
    )


def test_the_image_contains_only_what_a_judge_needs(podman: Podman, image: str, server: Container) -> None:
    """It has at most 400 MB: no torch, no BentoML, no compiler, no installer."""
    assert server.sh(f"for tool in {' '.join(ABSENT)}; do command -v $tool; done; true") == ""
    assert server.sh("ls -d /app/.venv/lib/python3*/site-packages/*/ | grep -E '/(torch|bentoml|plotly)/'; true") == ""
    assert int(podman("image", "inspect", "--format", "{{.Size}}", image)) <= 400_000_000


def test_sigterm_ends_it(podman: Podman, server: Container) -> None:
    """The exit code is 0, so a node can be drained."""
    podman("kill", "--signal", "TERM", server.name)
    assert podman("wait", server.name) == "0", server.logs()
