"""A table with categories and missing values is released like any other: the passengers of the Titanic.

v1 uses only the class and is right in 68 %, v2 uses every column and is right in 80 %, v3 has two more columns.
"""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from monitoring.drift.prediction_log import read_predictions
from tests.support.bentos import Bentos
from tests.support.stack import Kanaria

VERSIONS = ("v1", "v2", "v3")
WOMAN = {"pclass": 1, "sex": "female", "age": 29, "fare": 211.3375, "embarked": "S"}


@pytest.fixture(scope="module")
def bentos(tmp_path_factory: pytest.TempPathFactory) -> Bentos:
    """Passengers v1, v2 (better) and v3 (with two more columns, and defaults for old requests)."""
    made = Bentos(tmp_path_factory.mktemp("bentoml"))
    made.train(*VERSIONS, example="tests.support.passengers")
    for version in VERSIONS:
        arguments = ("--bentofile", "tests/support/passengers/bentofile.yaml", "--arg", f"model=passengers:{version}")
        made.build(version, *arguments)
    return made


@pytest.fixture(scope="module")
def kanaria(
    tmp_path_factory: pytest.TempPathFactory, bentos: Bentos, require_program: Callable[[str], str]
) -> Iterator[Kanaria]:
    require_program("envoy")
    made = Kanaria.at(tmp_path_factory.mktemp("home"), bentos.home, KANARIA_METRICS="scrape")
    made.ok("up", "passengers:v1")
    yield made
    made("down")


@pytest.fixture
def client(kanaria: Kanaria) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=kanaria.gateway, headers={"x-api-key": kanaria.api_key}, trust_env=False, timeout=60
    ) as opened:
        yield opened


def test_a_model_with_categories_is_validated(kanaria: Kanaria) -> None:
    """It accepts every category and every missing value that its schema allows."""
    assert "keeps the model contract" in kanaria.ok("validate", "passengers:v2")


def test_rows_may_name_their_features(kanaria: Kanaria, client: httpx.Client) -> None:
    """The answer is the same as for a list, missing values may be left out, and the log lists every column."""
    stranger = {"pclass": 3, "sex": "male"}
    listed = client.post("/predict", json={"features": [list(WOMAN.values()), [3, "male", None, None, None]]})
    named = client.post("/predict", json={"rows": [WOMAN, stranger]}, headers={"x-request-id": "by-name"})
    assert (named.status_code, named.json()["predictions"]) == (200, listed.json()["predictions"])
    kanaria.until(lambda _: "by-name" in set(read_predictions(kanaria.home / "predictions", 0).request_id))
    logged = read_predictions(kanaria.home / "predictions", 0)
    first, second = logged[logged.request_id == "by-name"].to_dict("records")
    assert {name: first[name] for name in ("sex", "age", "embarked")} == {"sex": "female", "age": 29, "embarked": "S"}
    assert (second["sex"], second["embarked"], second["age"] == second["age"]) == ("male", None, False)


def test_a_refusal_names_the_feature(client: httpx.Client) -> None:
    """It also says what is accepted."""
    answer = client.post("/predict", json={"rows": [WOMAN | {"sex": "woman"}]})
    said = answer.json()
    assert (answer.status_code, said["pointer"]) == (422, "#/rows/0/sex")
    assert said["detail"] == "row 0, sex: expected one of 'female', 'male', saw 'woman'"


def test_a_better_version_is_promoted(kanaria: Kanaria, bentos: Bentos) -> None:
    """A load test sends the held-out rows as in the samples, with words and missing values."""
    samples = bentos.model_folder("passengers:v1") / "samples.jsonl"
    assert "null" in samples.read_text()
    with kanaria.users(samples, labelled_ratio=0.8) as users:
        done = kanaria("release", "passengers:v2", "--spec", kanaria.plan(steps=["shadow", 50, 100]), "--wait")
        kanaria.until(lambda status: not status["canary"])  # its watch has ended: only one release at a time
        summary = users.stop()
    assert (done.returncode, summary.failures) == (0, 0), done.stdout + done.stderr


def test_drift_is_reported_by_the_category_that_grew(kanaria: Kanaria, client: httpx.Client, bentos: Bentos) -> None:
    """From now on all passengers are men."""
    lines = (bentos.model_folder("passengers:v1") / "samples.jsonl").read_text().splitlines()
    rows = [json.loads(line)["features"] for line in lines]
    for row in rows[:300]:
        client.post("/predict", json={"features": [[row[0], "male", *row[2:]]] * 8}).raise_for_status()
    done = kanaria("drift", "report", "--quick")
    assert (done.returncode, "`sex`" in done.stdout) == (1, True), done.stdout + done.stderr


def test_a_version_with_more_columns_is_promoted_before_callers_send_them(
    kanaria: Kanaria, client: httpx.Client, bentos: Bentos
) -> None:
    """It fills in missing columns and accepts the new ones; a version with fewer columns is refused."""
    samples = bentos.model_folder("passengers:v2") / "samples.jsonl"
    with kanaria.users(samples, labelled_ratio=0.5) as users:
        plan = kanaria.plan(steps=["shadow", 50, 100], watch="10m")
        done = kanaria("release", "passengers:v3", "--spec", plan, "--wait")
        summary = users.stop()
    assert (done.returncode, summary.failures) == (0, 0), done.stdout + done.stderr
    assert "Fills requests of stable's callers: `siblings` with 0.0" in " ".join(kanaria.ok("why").split())
    kanaria.ok("promote")  # ends the watch, which has no users left
    kanaria.until(lambda status: status["stable"]["tag"] == "passengers:v3" and not status["canary"])
    short, whole = list(WOMAN.values()), [*WOMAN.values(), 0, 0]
    answers = client.post("/predict", json={"features": [short, whole]}).json()["predictions"]
    named = client.post("/predict", json={"rows": [WOMAN, WOMAN | {"siblings": 0}]}).json()["predictions"]
    assert answers == named == [answers[0]] * 2
    back = kanaria("preflight", "passengers:v2")
    said = " ".join((back.stdout + back.stderr).split())
    assert (back.returncode, "Other features: without `siblings`, `parents`; 5 columns" in said) == (1, True), said
