"""From `kanaria optimise` to a Bento: served on the chosen engine, or on eager if that is not possible."""

from pathlib import Path

import pytest
import yaml

from tests.support.asking import HTTP
from tests.support.bentos import Bentos
from tests.support.stack import Kanaria

FAST = "digits:v2-fast"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, bentos: Bentos) -> Bentos:
    """A store with an optimised digits:v2 as model and as Bento."""
    folder = tmp_path_factory.mktemp("optimise")
    own = bentos.copied_to(folder / "bentoml")
    # The engine is given, because the fastest one depends on the machine.
    Kanaria.at(folder, own.home).ok("optimise", "digits:v2", "--engine", "onnx")
    own.build("v2-fast", "--arg", f"model={FAST}")
    return own


@pytest.fixture
def kanaria(tmp_path: Path, store: Bentos) -> Kanaria:
    return Kanaria.at(tmp_path, store.home)


def metadata(store: Bentos, tag: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((store.model_folder(tag) / "model.yaml").read_text())["metadata"]
    return found


def test_the_new_version_records_its_engine_and_the_reason(store: Bentos) -> None:
    """The model's metadata has the choice, the fallback and every measurement; training's own metadata stays."""
    noted = metadata(store, FAST)
    assert (noted["engine"], noted["fallback"], noted["optimised_from"]) == ("onnx", "eager", "digits:v2")
    measurements = noted["measurements"]
    assert isinstance(measurements, list)
    assert [trial["engine"] for trial in measurements] == ["eager", "onnx"]
    assert all(trial["accuracy"] > 0.97 and set(trial["ms"]) == {"1", "8", "32", "128"} for trial in measurements)
    assert noted["held_out_accuracy"] == metadata(store, "digits:v2")["held_out_accuracy"]


def test_it_is_served_on_that_engine_with_the_same_answers(store: Bentos) -> None:
    """Its Bento gives the same answers as the model that it was made from."""
    body = store.requests("digits:v2", 32)
    with store.serve(FAST) as fast, store.serve("digits:v2") as plain:
        given, expected = (
            HTTP.post(f"{server.url}/predict", content=body).raise_for_status().json()["predictions"]
            for server in (fast, plain)
        )
        assert ("kanaria_model_info", "onnx", FAST, FAST) in fast.metrics()
    assert [row["label"] for row in given] == [row["label"] for row in expected]
    assert [row["confidence"] for row in given] == pytest.approx([row["confidence"] for row in expected], abs=1e-4)


def test_the_benchmark_measures_every_engine_and_saves_nothing(kanaria: Kanaria, store: Bentos, tmp_path: Path) -> None:
    """It writes a page with a chart; the store's models are unchanged."""
    before = sorted(path.name for path in store.home.glob("models/digits/*"))
    done = kanaria.benchmark("optimise", "digits:v2", "--write", "--out", str(tmp_path / "pages"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "pages/optimise.md").read_text("utf-8")
    assert all(f"\n| {engine} " in page for engine in ("eager", "frozen", "bfloat16", "onnx", "onnx-int8"))
    assert "<svg" in (tmp_path / "pages/optimise.svg").read_text("utf-8")
    assert sorted(path.name for path in store.home.glob("models/digits/*")) == before


def test_a_signed_optimised_model_passes_its_preflight(kanaria: Kanaria) -> None:
    """The engine's files are signed with the rest, and its golden answers are its own."""
    kanaria.ok("sign", FAST)
    assert "passed" in kanaria.ok("preflight", FAST, "--against", "digits:v2")


def test_eager_serves_and_is_named_if_the_engine_cannot_load(store: Bentos, tmp_path: Path) -> None:
    """The log and the metric name eager, and the answers are right."""
    other = store.copied_to(tmp_path / "bentoml")
    (other.model_folder(FAST) / "model.sig").unlink(missing_ok=True)
    (other.model_folder(FAST) / "network.onnx").write_bytes(b"cut short")
    with other.serve(FAST) as server:
        HTTP.post(f"{server.url}/predict", content=other.requests(FAST, 3)).raise_for_status()
        assert ("kanaria_model_info", "eager", FAST, FAST) in server.metrics()
        assert "engine_unavailable" in server.log.read_text()


def test_a_model_that_was_changed_after_signing_is_not_optimised(store: Bentos, tmp_path: Path) -> None:
    """Otherwise its new version would be signed although it was changed."""
    kanaria = Kanaria.at(tmp_path, store.copied_to(tmp_path / "bentoml").home)
    kanaria.ok("sign", "digits:v1")
    samples = Path(kanaria.environment["BENTOML_HOME"], "models", "digits", "v1", "samples.jsonl")
    samples.write_bytes(samples.read_bytes()[:-1])
    done = kanaria("optimise", "digits:v1")
    assert (done.returncode, "samples.jsonl was changed" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits:v9"], "there is no model digits:v9"),
        (["digits:v1", "--engine", "steam"], "there is no engine steam"),
        (["digits:v1", "--version", "v1"], "cannot replace itself"),
        (["digits:v2"], "there is already a model digits:v2-fast"),
        (["digits:v1", "--implementation", "examples.digits.model:Digit"], "cannot be imported"),
    ],
)
def test_bad_input_says_what_to_do(kanaria: Kanaria, arguments: list[str], words: str) -> None:
    """Nothing is measured."""
    done = kanaria("optimise", *arguments)
    assert (done.returncode, words in done.stderr, "do:" in done.stderr) == (2, True, True)
