"""The Bento as a container, built and run as in docs/container.md, without reaching a registry."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from contract.model_files import GOLDEN_FILE, Golden
from contract.records import read_lines
from tests.support.containers import HARDENED, LAST, OFFLINE, Container, Podman, download_wheels
from tests.support.keys import key_pair
from tests.support.paths import ROOT
from tests.support.stack import Kanaria
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(900)  # the image is built with the CPU time that other tests leave

OWN_SERVICE = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "own-service.md").read_text(), re.DOTALL)
TAG = "digits:v2"
BUILD_TOOLS = ("cc", "gcc", "g++", "c++", "clang", "ld", "make", "git", "pip", "uv", "apt-get")


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[Podman]:
    for program in ("podman", "mmdebstrap"):
        require_program(program)
    made = Podman(tmp_path_factory.mktemp("podman"))
    yield made
    made.remove_all()


@pytest.fixture(scope="module")
def public_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The public half of the key that the image's model is signed with."""
    return key_pair(tmp_path_factory.mktemp("keys"))[1]


@pytest.fixture(scope="module")
def home(bento_home: Path, public_key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bento store with one version whose model is signed."""
    home = tmp_path_factory.mktemp("signed")
    for kind in ("bentos", "models"):
        shutil.copytree(bento_home / kind / "digits" / "v2", home / kind / "digits" / "v2")
    signing = [sys.executable, "-m", "kanaria", "sign", TAG, "--key", str(public_key.with_suffix(".pem"))]
    subprocess.run(signing, cwd=ROOT, env=os.environ | {"BENTOML_HOME": str(home)}, check=True)
    return home


@pytest.fixture(scope="module")
def image(podman: Podman, base_image: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of `bentoml containerize`, built without a registry and without a package index inside the build."""
    wheels = tmp_path_factory.mktemp("wheels")
    podman.import_base(base_image)
    download_bento(home, wheels)
    subprocess.run(
        [*LAST, sys.executable, "-m", "bentoml", "containerize", TAG, "--backend", "podman"]
        + [word for name, value in OFFLINE for word in ("--opt", f"{name}={value.format(wheels=wheels)}")],
        cwd="/",
        env=podman.environment | {"BENTOML_HOME": str(home)},
        check=True,
    )
    return TAG


def download_bento(home: Path, folder: Path) -> None:
    """Download every package of the Bento, and PyTorch from its CPU index if that can be reached."""
    python = home / "bentos" / "digits" / "v2"
    (cpu_index,) = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["python"]["extra_index_url"]
    download_wheels(folder, "torch", options=("--no-deps", "--retries", "0", "--extra-index-url", cpu_index))
    download_wheels(folder, "--requirement", str(python / "env" / "python" / "requirements.txt"))


@pytest.fixture(scope="module")
def verifying(public_key: Path) -> tuple[str, ...]:
    """Options for a container that serves only signed models."""
    return (
        "--volume",
        f"{public_key}:/key.pub:ro",
        "--env",
        "KANARIA_PUBLIC_KEY=/key.pub",
        "--env",
        "KANARIA_SIGNATURES=required",
    )


@pytest.fixture(scope="module")
def server(podman: Podman, image: str, verifying: tuple[str, ...]) -> Iterator[Container]:
    with podman.run(image, "--volume", "kanaria:/data", *verifying) as container:
        yield container


@pytest.fixture(scope="module")
def golden(home: Path) -> Golden:
    return read_lines(home / "models" / "digits" / "v2" / GOLDEN_FILE, Golden)[0]


def test_the_image_is_at_most_one_gigabyte(podman: Podman, image: str) -> None:
    """Every machine that serves downloads the image."""
    assert int(podman("image", "inspect", "--format", "{{.Size}}", image)) <= 1_000_000_000


def test_the_image_has_no_build_tools_and_no_cuda(server: Container) -> None:
    """An intruder finds no compiler, no version control and no installer."""
    assert server.sh(f"for tool in {' '.join(BUILD_TOOLS)}; do command -v $tool; done; true") == ""
    assert server.sh("find /app /usr -name 'libcud*'") == ""


def test_it_runs_as_an_unprivileged_user_with_a_read_only_root(server: Container) -> None:
    """It has no capability and cannot gain one, and only the volume can be written."""
    assert server.sh("id -u") == "1034"
    status = dict(line.split(":\t", 1) for line in server.sh("cat /proc/self/status").splitlines())
    assert (int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, "1")
    folders = "/ /app /home/bentoml /home/bentoml/bento /etc /var /data"
    assert server.sh(f"for folder in {folders}; do touch $folder/x 2>/dev/null && echo $folder; done; true") == "/data"


def test_its_golden_requests_are_answered_correctly(server: Container, golden: Golden) -> None:
    """The model inside is the one that was trained."""
    answer = (
        httpx.post(f"{server.url}/predict", json={"features": golden.features}, timeout=60).raise_for_status().json()
    )
    assert [row["label"] for row in answer["predictions"]] == [row.label for row in golden.predictions]
    assert answer["version"] == TAG


def test_answers_are_logged_to_the_volume(server: Container, golden: Golden) -> None:
    """The log outlives the container and can be searched by request id."""
    headers = {"x-request-id": "in-a-container"}
    asked = {"features": golden.features}
    httpx.post(f"{server.url}/predict", json=asked, headers=headers, timeout=60).raise_for_status()
    lines = server.sh("until grep -h in-a-container /data/predictions/*/*.jsonl; do :; done").splitlines()
    assert [json.loads(line)["answer"]["request_id"] for line in lines] == ["in-a-container"]


def test_its_health_check_passes(podman: Podman, server: Container) -> None:
    """Docker and podman run it every ten seconds."""
    podman("healthcheck", "run", server.name)


def test_its_model_is_verified(server: Container) -> None:
    """With the public key mounted, the worker logs that it checked every file."""
    assert '"is_verified": true' in server.logs()


def test_a_model_that_cannot_be_verified_is_not_served(podman: Podman, image: str) -> None:
    """Signatures are required and no key is mounted: the container stops and says what to do."""
    refused = podman(
        "run", "--rm", *HARDENED, "--network", "none", "--env", "KANARIA_SIGNATURES=required", image, fails=True
    )
    assert "cannot be verified without a public key" in refused


def test_sigterm_lets_a_request_in_flight_finish(
    podman: Podman, image: str, verifying: tuple[str, ...], golden: Golden
) -> None:
    """Half of a request was sent when the container gets SIGTERM: the request is answered, and the exit code is 0."""
    body = json.dumps({"features": golden.features}).encode()
    with podman.run(image, *verifying) as container:
        client = http.client.HTTPConnection("127.0.0.1", container.port, timeout=120)
        client.putrequest("POST", "/predict")
        client.putheader("content-length", str(len(body)))
        client.endheaders(body[: len(body) // 2])
        container.is_ready()  # an answer to this means that the server has read what came before it
        podman("kill", "--signal", "TERM", container.name)
        client.send(body[len(body) // 2 :])
        assert client.getresponse().status == 200
        client.close()
        assert podman("wait", container.name) == "0"


def test_a_container_serves_behind_the_gateway(podman: Podman, image: str, golden: Golden, tmp_path: Path) -> None:
    """It uses the entry of docs/own-service.md: started, found again after its `podman` was killed, and stopped."""
    (entry,) = [text for text in OWN_SERVICE if "podman run" in text]
    versions = yaml.safe_load(entry)
    stores = {name: podman.environment[name] for name in ("CONTAINERS_STORAGE_CONF", "CONTAINERS_CONF")}
    command = str(versions["digits-boxed:v2"]["command"]).replace(" --network", f" {' '.join(HARDENED)} --network")
    unsigned = command.replace(f" {TAG}", f" --env KANARIA_SIGNATURES=off {image}")
    versions["digits-boxed:v2"] |= {"command": unsigned, "environment": stores}
    (tmp_path / "versions.yaml").write_text(yaml.safe_dump(versions))
    kanaria = Kanaria.at(tmp_path, tmp_path / "bentoml", KANARIA_VERSIONS=str(tmp_path / "versions.yaml"))

    def containers() -> str:
        return podman("ps", "--all", "--quiet", "--filter", "name=^digits-")

    try:
        kanaria.ok("up", "digits-boxed:v2")
        key = {"x-api-key": (kanaria.home / "api-key").read_text().strip()}
        url = f"http://127.0.0.1:{kanaria.environment['KANARIA_GATEWAY_PORT']}"

        def is_answered() -> bool:
            asked = {"features": golden.features}
            return httpx.post(f"{url}/predict", json=asked, headers=key, timeout=60).is_success

        assert is_answered()
        first = containers()
        client = json.loads((kanaria.home / "processes" / "digits-boxed@v2.json").read_text())["pid"]
        os.kill(client, signal.SIGKILL)
        eventually(lambda: containers() not in ("", first), within_s=120)
        eventually(is_answered, within_s=180)
    finally:
        kanaria("down")
    eventually(lambda: containers() == "")  # `--rm` removes it when it has ended
