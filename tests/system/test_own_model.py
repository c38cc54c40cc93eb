"""A model of a different kind, a number from a table of named features, is released like the first example.

All of it is in examples/diabetes: nothing else in the repository was written for it.
"""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from monitoring.drift.prediction_log import read_predictions
from tests.support.bentos import Bentos
from tests.support.paths import ROOT
from tests.support.stack import Kanaria, running

BENTOFILE = "examples/diabetes/bentofile.yaml"
STABLE = "diabetes:v1"
VERSIONS = ("v1", "v2", "v3")
ROWS_AT_ONCE = 5


@pytest.fixture(scope="module")
def bentos(tmp_path_factory: pytest.TempPathFactory) -> Bentos:
    """Diabetes v1, v2 (better) and v3 (silently wrong)."""
    made = Bentos(tmp_path_factory.mktemp("bentoml"))
    made.train(*VERSIONS, example="examples.diabetes")
    for version in VERSIONS:
        made.build(version, "--bentofile", BENTOFILE, "--arg", f"model=diabetes:{version}")
    return made


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, bentos: Bentos, require_program: Callable[[str], str]
) -> Iterator[Kanaria]:
    """One stack for all releases."""
    require_program("envoy")
    with running(tmp_path_factory.mktemp("stack"), bentos.home, STABLE, KANARIA_METRICS="scrape") as made:
        yield made


@pytest.fixture
def kanaria(stack: Kanaria) -> Iterator[Kanaria]:
    yield stack
    stack.back_to(STABLE)


def seen(kanaria: Kanaria) -> dict[str, dict[str, tuple[int, int]]]:
    """Signal -> bad and all events of each version over the newest release."""
    signals = kanaria.status()["release"]["signals"]
    return {signal["name"]: {side: signal[side] for side in ("stable", "canary")} for signal in signals}


def test_a_better_version_is_promoted(kanaria: Kanaria, bentos: Bentos) -> None:
    """It is judged on every signal that a number has: its bins, agreement with stable, and labels."""
    with kanaria.users(bentos.model_folder("diabetes:v1") / "samples.jsonl") as users:
        done = kanaria("release", "diabetes:v2", "--spec", kanaria.plan(steps=["shadow", 50, 100]), "--wait")
        summary = users.stop()
    assert (done.returncode, summary.failures) == (0, 0), done.stdout + done.stderr
    bins = json.loads((bentos.model_folder("diabetes:v1") / "schema.json").read_text())["answer"]["edges"]
    named = {name for name in seen(kanaria) if name.startswith("class:")}
    assert named == {
        f"class:below {bins[0]:g}",
        *(f"class:{low:g} to {high:g}" for low, high in pairwise(bins)),
        f"class:{bins[-1]:g} or more",
    }, "the canary was counted by its own bins"
    assert seen(kanaria)["disagreement"]["canary"][1] > 0
    rights = {version: counts.correct / (counts.correct + counts.wrong) for version, counts in summary.versions.items()}
    assert set(rights) == {"diabetes:v1", "diabetes:v2"}
    assert min(rights.values()) > 0.5, "the users' own check must use the tolerance"


def test_a_silently_wrong_version_is_rolled_back(kanaria: Kanaria, bentos: Bentos) -> None:
    """It answers each request with a plausible number; no user ever gets one."""
    with kanaria.users(bentos.model_folder("diabetes:v1") / "samples.jsonl") as users:
        done = kanaria("release", "diabetes:v3", "--spec", kanaria.plan(steps=["shadow", 50, 100]), "--wait")
        summary = users.stop()
    assert (done.returncode, summary.failures) == (1, 0), done.stdout + done.stderr
    row = json.loads(kanaria.ok("history", "--json"))[-1]
    assert row["signal"].partition(":")[0] in ("disagreement", "paired_label", "wrong_label", "class")
    assert set(summary.versions) == {"diabetes:v1"}
    logged = read_predictions(kanaria.home / "predictions", 0)
    assert {"age", "body_mass_index", "label"} <= set(logged.columns)
    assert "sex" not in logged.columns, "a private column must not be logged"


def test_drifting_traffic_is_reported_by_its_column(
    tmp_path: Path, bentos: Bentos, require_program: Callable[[str], str]
) -> None:
    """The patients have far more sugar in their blood than those that the model was tested on."""
    require_program("envoy")
    lines = (bentos.model_folder("diabetes:v1") / "samples.jsonl").read_text().splitlines()
    rows = [json.loads(line)["features"] for line in lines]
    sweeter = [[*row[:-1], row[-1] + 100] for row in rows]
    with running(tmp_path, bentos.home, STABLE, KANARIA_METRICS="scrape") as kanaria:
        with httpx.Client(
            base_url=kanaria.gateway, headers={"x-api-key": kanaria.api_key}, trust_env=False, timeout=60
        ) as client:
            for first in range(0, len(rows), ROWS_AT_ONCE):
                asked = {"features": sweeter[first : first + ROWS_AT_ONCE]}
                client.post("/predict", json=asked).raise_for_status()
        done = kanaria("drift", "report", "--quick")
        assert (done.returncode, "`blood_sugar`" in done.stdout) == (1, True), done.stdout + done.stderr


def test_no_other_code_mentions_the_example() -> None:
    """The rest of the code depends only on the contract."""
    folders = ("kanaria", "contract", "service", "observer", "rollout", "monitoring", "loadtest")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in sources if "diabetes" in path.read_text().lower()] == []
