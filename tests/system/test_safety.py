"""Models that were tampered with, or that would run code when they are read, never answer a request."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from service.signatures import BENTO_SIGNATURE_FILE, verify
from tests.support.bentos import Bentos
from tests.support.paths import ROOT
from tests.support.stack import Kanaria
from tests.support.waiting import eventually

PLAIN = {".safetensors", ".json", ".jsonl", ".yaml", ".py", ".txt", ".in", ".md", ".sh", ".template", ""}
# Loads models and predicts with them; Python itself reports every unpickling of a class.
LOAD_UNDER_WATCH = """
import sys
from pathlib import Path
import numpy as np
from service.server.batching import predict_rows
from contract.model_files import GOLDEN_FILE, Golden
from contract.records import read_lines
from examples.digits.model import Digits

def watch(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit(f"unpickles {arguments}")

sys.addaudithook(watch)
for folder in map(Path, sys.argv[1:]):
    rows = [row for golden in read_lines(folder / GOLDEN_FILE, Golden) for row in golden.features]
    predict_rows(Digits(folder), np.array(rows, dtype=np.float32))
    print(folder)
"""


@pytest.fixture
def stack(tmp_path: Path, bentos: Bentos, require_program: Callable[[str], str]) -> Iterator[Kanaria]:
    """A state folder and a store that a test may damage."""
    require_program("envoy")
    made = Kanaria.at(tmp_path, bentos.copied_to(tmp_path / "store").home, KANARIA_METRICS="scrape")
    yield made
    made("down")


def model_of(stack: Kanaria, tag: str) -> Path:
    return Path(stack.environment["BENTOML_HOME"], "models", *tag.split(":"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_signed_version_with_a_flipped_bit_is_rolled_back_before_traffic(stack: Kanaria) -> None:
    """The unchanged version is verified and serves; the changed one does not start, and the reason names the file."""
    stack.ok("sign", "digits:v1")
    stack.ok("sign", "digits:v2")
    flip_a_bit(model_of(stack, "digits:v2") / "weights.safetensors")
    stack.ok("up", "digits:v1")
    assert '"is_verified": true' in (stack.home / "logs" / "digits@v1.log").read_text()
    done = stack("release", "digits:v2", "--wait", "--spec", stack.plan())
    assert done.returncode == 1, done.stdout + done.stderr
    (row,) = json.loads(stack.ok("history", "--json"))
    assert row["signal"] == "startup"
    assert "weights.safetensors was changed after it was signed" in row["reason"]
    metrics = httpx.get(f"http://127.0.0.1:{stack.environment['KANARIA_CONTROLLER_PORT']}/metrics", timeout=60).text
    assert "kanaria_signature_refused_total 1.0" in metrics.splitlines()


def test_a_signed_bento_with_changed_code_never_runs(stack: Kanaria) -> None:
    """The error names the file, at the start, in a preflight and in `kanaria validate`; its model is unchanged."""
    for tag in ("digits:v1", "digits:v2"):
        assert f"signed the Bento {tag}" in stack.ok("sign", tag)
    code = Path(stack.environment["BENTOML_HOME"], "bentos", "digits", "v2", "src", "examples", "digits", "model.py")
    code.write_text(f"{code.read_text()}\nprint('not what was signed', flush=True)\n")
    stack.ok("up", "digits:v1")
    done = stack("release", "digits:v2", "--wait", "--spec", stack.plan())
    assert done.returncode == 1, done.stdout + done.stderr
    words = "src/examples/digits/model.py was changed after it was signed"
    (row,) = json.loads(stack.ok("history", "--json"))
    assert words in row["reason"]
    assert words in stack("preflight", "digits:v2").stdout
    assert words in stack("validate", "digits:v2").stderr
    assert "not what was signed" not in (stack.home / "logs" / "digits@v2.log").read_text()


def test_changes_in_the_store_while_a_version_runs_are_never_loaded(stack: Kanaria) -> None:
    """The weights changed after the check: the next worker loads what was verified."""
    stack.ok("sign", "digits:v1")
    stack.ok("up", "digits:v1")
    flip_a_bit(model_of(stack, "digits:v1") / "weights.safetensors")
    version = psutil.Process(json.loads((stack.home / "processes" / "digits@v1.json").read_text())["pid"])
    (worker,) = version.children()
    worker.kill()
    log = stack.home / "logs" / "digits@v1.log"
    eventually(lambda: log.read_text().count('"is_verified": true') == 2)


def test_a_version_signed_while_it_runs_serves_on_and_is_verified_at_its_next_start(stack: Kanaria) -> None:
    """Its workers serve what it was started with; once, new workers refused the new signature."""
    stack.ok("up", "digits:v1")
    log, controller = (stack.home / "logs" / name for name in ("digits@v1.log", "controller.log"))
    stack.ok("sign", "digits:v1")
    for worker in psutil.Process(stack.pid("digits@v1")).children():
        worker.kill()
    stack.until(lambda status: status["stable"]["health"] == "ready" and status["stable"]["restarts"] > 0)
    assert "SignatureError" not in log.read_text()
    eventually(lambda: "verified_from_next_start" in controller.read_text())
    stack.kill("digits@v1")
    eventually(lambda: '"is_verified": true' in log.read_text())
    stack.until(lambda status: status["stable"]["health"] == "ready")


def test_a_changed_version_cannot_become_the_first_stable(stack: Kanaria) -> None:
    """`up` shows its last output and the path of its log."""
    stack.ok("sign", "digits:v1")
    flip_a_bit(model_of(stack, "digits:v1") / "weights.safetensors")
    done = stack("up", "digits:v1")
    assert (done.returncode, "weights.safetensors" in done.stderr, "digits@v1.log" in done.stderr) == (3, True, True)


def test_an_unsigned_version_is_refused_if_signatures_are_required(stack: Kanaria) -> None:
    """With `KANARIA_SIGNATURES=required`, stable is signed and the canary is not."""
    stack.environment["KANARIA_SIGNATURES"] = "required"
    stack.ok("sign", "digits:v1")
    stack.ok("up", "digits:v1")
    assert stack("release", "digits:v2", "--wait", "--spec", stack.plan()).returncode == 1
    (row,) = json.loads(stack.ok("history", "--json"))
    assert "digits/v2 is not signed" in row["reason"]


def test_a_version_that_would_break_callers_is_refused_before_traffic(stack: Kanaria) -> None:
    """It accepts fewer rows than stable and gives other answers than recorded; preflight and release show both."""
    edit(model_of(stack, "digits:v2") / "schema.json", '"max_rows": 1024', '"max_rows": 10')
    edit(model_of(stack, "digits:v2") / "golden.jsonl", '"confidence":0.9', '"confidence":0.1')
    tried = stack("preflight", "digits:v2", "--against", "digits:v1")
    assert tried.returncode == 1, tried.stdout + tried.stderr
    stack.ok("up", "digits:v1")
    assert stack("release", "digits:v2", "--wait", "--spec", stack.plan()).returncode == 1
    (row,) = json.loads(stack.ok("history", "--json"))
    assert row["signal"] == "preflight"
    for output in (tried.stdout, row["reason"], " ".join(stack.ok("why").split())):
        assert "t accepts at most 10 rows in a request, stable 1024" in output
        assert re.search(r"golden request \d+: row 0: `confidence` is 0", " ".join(output.split()).lower())


def test_a_compatible_version_passes_with_its_latency_and_memory(stack: Kanaria) -> None:
    """No stack is needed: every golden answer is as expected, and latency and memory are measured."""
    result = json.loads(stack.ok("preflight", "digits:v2", "--json"))
    assert (result["differences"], result["golden_requests"], result["stable"]) == ([], 20, None)
    assert 0 < result["p50_ms"] <= result["slowest_ms"]
    assert result["memory_mb"] > 50


def test_a_version_that_does_not_start_fails_its_preflight_with_its_last_output(stack: Kanaria) -> None:
    """A signed model has a flipped bit; an unknown tag is bad input instead."""
    stack.ok("sign", "digits:v2")
    flip_a_bit(model_of(stack, "digits:v2") / "weights.safetensors")
    failed, unknown = stack("preflight", "digits:v2"), stack("preflight", "digits:v99")
    assert (failed.returncode, "weights.safetensors was changed" in failed.stdout) == (1, True)
    assert (unknown.returncode, "there is no Bento digits:v99" in unknown.stderr) == (2, True)


def test_a_model_that_cannot_be_loaded_is_not_waited_for(stack: Kanaria) -> None:
    """Its server tried without end, and both commands waited for two minutes."""
    os.truncate(model_of(stack, "digits:v1") / "weights.safetensors", 100)
    tried, first = stack("preflight", "digits:v1"), stack("up", "digits:v1")
    assert (tried.returncode, "did not start: " in tried.stdout) == (1, True), tried
    seen_first = "its workers keep ending", "digits@v1 ended by itself"
    assert (first.returncode, any(f"saw: {words}; " in first.stderr for words in seen_first)) == (3, True), first
    for output in (tried.stdout, first.stderr):
        assert "SafetensorError" in output


def test_a_signature_survives_export_and_import(stack: Kanaria, tmp_path: Path) -> None:
    """A Bento that was exported and imported keeps its own signature and its model's, and both are still valid."""
    stack.ok("sign", "digits:v1")
    other = stack.environment | {"BENTOML_HOME": str(tmp_path / "other")}
    for environment, arguments in ((stack.environment, "export digits:v1"), (other, "import")):
        subprocess.run(
            [sys.executable, "-m", "bentoml", *arguments.split(), str(tmp_path / "v1.bento")],
            env=environment,
            check=True,
        )
    verify(tmp_path / "other/models/digits/v1", stack.home / "signing-key.pub")
    verify(tmp_path / "other/bentos/digits/v1", stack.home / "signing-key.pub", signature=BENTO_SIGNATURE_FILE)


def test_no_file_of_a_model_or_a_bento_is_a_pickle(bento_home: Path) -> None:
    """Every file is text or safetensors; none starts like a pickle or like torch's zip of pickles.

    Files that Python compiles beside a running version's code were not built, and a signed copy leaves them out.
    """
    found = [path for kind in ("models", "bentos") for path in (bento_home / kind).rglob("*") if path.is_file()]
    files = [path for path in found if "__pycache__" not in path.parts]
    strange = [
        path
        for path in files
        if path.suffix not in PLAIN
        or path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
    ]
    assert (bool(files), strange) == (True, [])


def test_nothing_is_unpickled_when_a_model_is_loaded_and_answers(bento_home: Path) -> None:
    """Python's own audit hook would report it."""
    folders = [str(folder) for folder in (bento_home / "models" / "digits").iterdir() if folder.is_dir()]
    done = subprocess.run(
        [sys.executable, "-c", LOAD_UNDER_WATCH, *folders], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, folders), done.stderr


def test_no_other_user_can_read_the_state_folder(stack: Kanaria) -> None:
    """The folder and all files in it are closed, even if the folder was open before.

    The umask of the user who runs the command does not matter.
    """
    stack.home.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        stack.ok("up", "digits:v1")
    finally:
        os.umask(before)
    golden = model_of(stack, "digits:v1") / "golden.jsonl"
    features = json.loads(golden.read_text().splitlines()[0])["features"]
    with httpx.Client(base_url=stack.gateway, headers={"x-api-key": stack.api_key}, timeout=30) as user:
        answer = user.post("/predict", json={"features": features}).raise_for_status().json()
        labels = [row["label"] for row in answer["predictions"]]
        user.post("/feedback", json={"request_id": answer["request_id"], "labels": labels}).raise_for_status()
    stack.ok("ledger", "backup")
    assert stack.home.stat().st_mode & 0o777 == 0o700
    others = [path for path in stack.home.rglob("*") if not path.is_symlink()]
    assert [path for path in others if path.exists() and path.stat().st_mode & 0o022] == []
    for kept in ("logs", "answers", "predictions", "ledger.db"):
        found = stack.home / kept
        assert found.exists(), kept
        inside = [found, *found.rglob("*")]
        assert [path for path in inside if path.exists() and path.stat().st_mode & 0o077] == []
