"""A model whose different answers are better is promoted; one that labels prove worse never gets users.

The models classify the breast cancer table of Wisconsin: two labels, thirty measurements. v1 is right in 59 %, v2 in
97 %, v3 in 87 %.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.bentos import Bentos
from tests.support.stack import Kanaria, running

STABLE = "tumours:v1"
VERSIONS = ("v1", "v2", "v3")
STEPS = ["shadow", 50, 100]


@pytest.fixture(scope="module")
def bentos(tmp_path_factory: pytest.TempPathFactory) -> Bentos:
    """Tumours v1 (barely better than chance), v2 (better) and v3 (worse than v2)."""
    made = Bentos(tmp_path_factory.mktemp("bentoml"))
    made.train(*VERSIONS, example="tests.support.tumours")
    for version in VERSIONS:
        made.build(version, "--bentofile", "tests/support/tumours/bentofile.yaml", "--arg", f"model=tumours:{version}")
    return made


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, bentos: Bentos, require_program: Callable[[str], str]
) -> Iterator[Kanaria]:
    """One stack for all tests that start with v1."""
    require_program("envoy")
    with running(tmp_path_factory.mktemp("stack"), bentos.home, STABLE, KANARIA_METRICS="scrape") as made:
        yield made


@pytest.fixture
def kanaria(stack: Kanaria) -> Iterator[Kanaria]:
    yield stack
    stack.back_to(STABLE)


@pytest.fixture
def samples(bentos: Bentos) -> Path:
    return bentos.model_folder("tumours:v1") / "samples.jsonl"


def test_a_better_model_that_differs_in_two_of_five_answers_is_promoted(kanaria: Kanaria, samples: Path) -> None:
    """The plan sets no limit for this difference: labels for half of the requests are enough."""
    with kanaria.users(samples, labelled_ratio=0.5) as users:
        done = kanaria("release", "tumours:v2", "--spec", kanaria.plan(steps=STEPS, soak="8s"), "--wait")
        summary = users.stop()
    assert (done.returncode, summary.failures) == (0, 0), done.stdout + done.stderr
    assert "proven better by labels: it differs in" in " ".join(kanaria.ok("why").split())


def test_a_model_that_labels_prove_worse_is_rolled_back_in_the_shadow_step(
    tmp_path: Path, bentos: Bentos, samples: Path, require_program: Callable[[str], str]
) -> None:
    """No user got any of its answers."""
    require_program("envoy")
    with running(tmp_path, bentos.home, "tumours:v2", KANARIA_METRICS="scrape") as kanaria:
        with kanaria.users(samples, labelled_ratio=0.5) as users:
            done = kanaria(
                "release", "tumours:v3", "--spec", kanaria.plan(steps=STEPS, soak="30s", step_deadline="200s"), "--wait"
            )
            summary = users.stop()
        assert (done.returncode, summary.failures) == (1, 0), done.stdout + done.stderr
        (row,) = json.loads(kanaria.ok("history", "--json"))
        assert row["signal"] in ("paired_label", "wrong_label")
        assert set(summary.versions) == {"tumours:v2"}


STEPS_ALONE = {"steps": [25, 50, 100], "compare": "50%", "step_deadline": "100s"}
PAIRS_ALONE = {
    "signals": {
        "wrong_label": None,
        "class": None,
        "disagreement": None,
        "latency": {"slower_than_ms": [250], "tolerance": 2},
    }
}


def test_pairs_in_rollout_steps_prove_a_model_better(kanaria: Kanaria, samples: Path) -> None:
    """There is no shadow step: the plan waits for this proof, and no other signal uses labels."""
    with kanaria.users(samples, labelled_ratio=0.5) as users:
        plan = kanaria.plan(**STEPS_ALONE, **PAIRS_ALONE, require="better")
        done = kanaria("release", "tumours:v2", "--spec", plan, "--wait")
        summary = users.stop()
    assert (done.returncode, summary.failures) == (0, 0), done.stdout + done.stderr
    said = " ".join(kanaria.ok("why").split())
    assert "proven better by labels: where labels show that only one version is right, it is" in said


def test_without_labels_a_person_decides_about_a_model_that_differs(kanaria: Kanaria, samples: Path) -> None:
    """It is unknown which version is right, so the release holds in the shadow step until a person promotes."""
    with kanaria.users(samples, labelled_ratio=0.0) as users:
        signals = {"class": {"gross": None}, "latency": {"slower_than_ms": [250], "tolerance": 2}}
        kanaria.ok("release", "tumours:v2", "--spec", kanaria.plan(steps=STEPS, signals=signals))
        kanaria.until(
            lambda status: (
                "leaves this to a person" in status["last_action"]
                and "a person" in (status["release"]["waits_for"] or "")
            )
        )
        kanaria.ok("promote")
        kanaria.until(lambda status: status["stable"]["tag"] == "tumours:v2")
        assert users.stop().failures == 0
