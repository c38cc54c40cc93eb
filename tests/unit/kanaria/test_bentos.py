"""What is read from the local BentoML store."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pathspec import PathSpec

from contract.answer_types import AnswerKind, Labels, Number
from contract.model_files import Feature, Schema
from kanaria.errors import SetupError
from kanaria.stack.bentos import (
    bento_tag,
    bento_tags,
    comparison_schema_of,
    implementation_of,
    make_own_home,
    model_folder,
    model_of,
    model_tag,
    models_of,
    schemas_of,
    service_of,
)
from kanaria.stack.implementations import implementation_for
from kanaria.stack.manifests import losses
from kanaria.stack.requirements import missing, wanted_by
from rollout.fleet import Route
from tests.support.paths import ROOT


def store(home: Path, answer: AnswerKind, version: str = "v1") -> None:
    """A store with one more version of the Bento m, whose model answers so."""
    bento, model = home / "bentos/m" / version, home / "models/m" / version
    for folder in (bento, model):
        folder.mkdir(parents=True)
    (bento / "bento.yaml").write_text(f"services: [{{models: [{{tag: 'm:{version}'}}]}}]")
    (model / "model.yaml").touch()
    Schema(features=(Feature(name="x", minimum=0, maximum=1),), answer=answer).write(model)


def test_numbers_are_compared_by_the_schema_of_the_first_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bins and its tolerance."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    answer = Number(tolerance=2, edges=(10, 20))
    store(tmp_path, answer)
    assert comparison_schema_of("m:v1") == answer.model_dump_json()


def test_a_model_is_loaded_by_the_class_of_its_bento(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by that of the folder where the command runs, which may be about another model."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bentofile.yaml").write_text("args: {model: 'other:v1', implementation: 'other:Other'}")
    store(tmp_path, Number(tolerance=2, edges=(10, 20)))
    bento = tmp_path / "bentos/m/v1/bento.yaml"
    bento.write_text(f"{bento.read_text()}\nargs: {{implementation: 'own.model:Own'}}")
    assert implementation_for("m:v1") == ("own.model:Own", tmp_path / "bentos/m/v1/src")
    assert implementation_for("other:v1") == ("other:Other", tmp_path)
    with pytest.raises(SetupError, match="is about other"):
        implementation_for("third:v1")


@pytest.mark.parametrize(
    "bentofile", ["bentofile.yaml", "examples/diabetes/bentofile.yaml", "tests/chaos/bentofile.yaml"]
)
def test_a_bento_carries_the_packages_around_its_modules(bentofile: str) -> None:
    """A folder without its `__init__.py` would lose against another package of that name on PYTHONPATH."""
    carried = PathSpec.from_lines("gitwildmatch", yaml.safe_load((ROOT / bentofile).read_text())["include"])
    packages = {
        parent / "__init__.py"
        for folder in ("contract", "service", "examples", "tests/chaos")
        for module in (ROOT / folder).rglob("*.py")
        if carried.match_file(module.relative_to(ROOT))
        for parent in module.relative_to(ROOT).parents
        if (ROOT / parent / "__init__.py").exists()
    }
    assert {package for package in packages if not carried.match_file(package)} == set()


def test_thousands_of_labels_need_no_comparison_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It travels in an environment variable, where 128 KiB do not fit; labels count as themselves."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    store(tmp_path, Labels(labels=tuple(f"a rather long name of a product, number {n}" for n in range(5000))))
    assert comparison_schema_of("m:v1") is None


def test_an_empty_variable_counts_as_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is then in the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BENTOML_HOME", "")
    store(tmp_path / "bentoml", Labels(labels=("a",)))
    assert bento_tags() == ("m:v1",)


@pytest.mark.parametrize("written", ["m", "m:latest", "M", "M:V2", "m:v2"])
def test_a_tag_may_be_written_as_for_bentoml(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a version it is the newest, and capital letters are small ones."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    kind = Labels(labels=("a",))
    for version in ("v10", "v2"):
        store(tmp_path, kind, version)
    assert (bento_tag(written), model_tag(written)) == ("m:v2", "m:v2")


def test_the_newest_is_what_bentoml_calls_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file `latest` says it, unless that version was deleted."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    for version in ("v1", "v2"):
        store(tmp_path, Labels(labels=("a",)), version)
    latest = tmp_path / "bentos/m/latest"
    for written, meant in (("v1", "m:v1"), ("gone", "m:v2"), ("", "m:v2")):
        latest.write_text(written)
        assert bento_tag("m") == meant


@pytest.mark.parametrize("written", ["n", "m:v3", ":v1", "", "m:v1:v1", "../m:v1", "m:latest:x"])
def test_a_tag_that_is_not_there_is_said_with_those_that_are(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was typed: nothing else is looked into."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    store(tmp_path, Labels(labels=("a",)))
    with pytest.raises(SetupError, match="Bentos here: m:v1"):
        bento_tag(written)


@pytest.mark.parametrize(
    ("manifest", "model", "implementation"),
    [
        (
            "name: s\nservices: [{name: Summary, models: []}]\nargs: {}",
            "has no model",
            "does not keep the model contract",
        ),
        ("name: s\nservices: [{name: Summary}]", "has no model", "does not keep the model contract"),
        ("name: s\nservices:", "has no model", "does not keep the model contract"),
        ("name: s\nargs:\nrunners: [{name: r}]", "has no model", "does not keep the model contract"),
        ("", "cannot be read", "cannot be read"),
        ("- a list", "cannot be read", "cannot be read"),
        ("name: [", "cannot be read", "cannot be read"),
    ],
)
def test_a_bento_that_knows_nothing_of_ours_is_no_traceback(
    manifest: str, model: str, implementation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a damaged one: what is missing is said."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos/s/v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text(manifest)
    with pytest.raises(SetupError, match=model):
        model_of("s:v1")
    with pytest.raises(SetupError, match=implementation):
        implementation_of("s:v1")
    assert comparison_schema_of("s:v1") is None


def test_questions_about_a_task_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy asks another version, which does not know the task and answers 404; to submit one is a request as any."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos/m/v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text("schema: {routes: [{route: /train, is_task: true}, {route: /ask}]}")
    service = service_of("m:v1")
    assert [route.path for route in service.answers_whole] == ["/train", "/train/submit", "/ask"]
    assert Route("/train/{action}", is_streamed=True) in service.routes


@pytest.mark.parametrize(
    ("config", "has_tls"), [("{}", False), ("{ssl: {enabled: true}}", True), ("{ssl: null}", False)]
)
def test_a_service_may_ask_for_tls(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_tls: bool
) -> None:
    """Its owner is told whose certificate callers see."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos/m/v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text(f"entry_service: M\nservices: [{{name: M, config: {config}}}]\nschema: {{}}")
    assert service_of("m:v1").has_tls is has_tls


LEGACY = """
components: {}
paths:
  /livez: {get: {tags: [Infrastructure]}}
  /v1/score: {post: {produces: [application/json], x-bentoml-name: score, description: '', requestBody: {}}}
  /talk: {post: {produces: [text/plain], x-bentoml-name: talk}}
  /{id}: {get: {summary: of an application that was mounted somewhere}, post: {summary: likewise}}
"""


def test_the_routes_of_a_legacy_service_are_those_of_its_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`svc.api` of `bentoml.legacy.Service`: its manifest has none, and all were counted together and never copied."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos/m/v1"
    (folder / "apis").mkdir(parents=True)
    (folder / "bento.yaml").write_text("{apis: [{name: score}, {name: talk}], schema: {}}")
    (folder / "apis/openapi.yaml").write_text(LEGACY)
    assert service_of("m:v1").routes == (Route("/v1/score"), Route("/talk", may_stream=True))
    known = schemas_of("m:v1")
    assert known is not None
    assert known.keys() == {"/v1/score", "/talk"}
    assert [each.says for each in losses({"/talk": {}}, known)] == ["it has no route /v1/score"]


@pytest.mark.parametrize(
    "description",
    ["[", "- a", "paths: [/a]", "paths: {/a: {post: {x-bentoml-name: a, produces: 7}}}", "paths: {/a: 7}"],
)
def test_a_description_that_is_none_is_said(description: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged Bento is no traceback."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos/m/v1"
    (folder / "apis").mkdir(parents=True)
    (folder / "bento.yaml").write_text("{apis: [{name: a}]}")
    (folder / "apis/openapi.yaml").write_text(description)
    for read in (service_of, schemas_of):
        with pytest.raises(SetupError, match="the routes of m:v1 cannot be read"):
            read("m:v1")


@pytest.mark.parametrize(
    ("config", "ready", "metrics"),
    [
        ("{}", "/readyz", "/metrics"),
        ("{endpoints: {livez: /v1/livez, readyz: /v1/readyz}}", "/v1/readyz", "/v1/metrics"),  # `path_prefix: /v1`
        (
            "{endpoints: {livez: /größe/livez, readyz: /größe/readyz}}",
            "/gr%C3%B6%C3%9Fe/readyz",
            "/gr%C3%B6%C3%9Fe/metrics",
        ),
        ("{endpoints: {readyz: app/ready}}", "/app/ready", "/metrics"),  # of an application that is mounted
        ("{endpoints: {livez: /app/livez, readyz: /app/readyz}}", "/app/readyz", "/metrics"),  # likewise
        ("{endpoints: {livez: /v1/livez, readyz: /app/ready}}", "/app/ready", "/v1/metrics"),  # with a prefix besides
        ("{endpoints: {livez: /health, readyz: /v1/readyz}}", "/v1/readyz", "/v1/metrics"),
        ("{endpoints: {livez: /v1/livez, readyz: /health}}", "/v1/readyz", "/v1/metrics"),  # which nobody serves
        (
            "{endpoints: {livez: /health, readyz: /health}}",
            "/readyz",
            "/metrics",
        ),  # likewise, as BentoML's own is there
        ("{endpoints: {livez: /alive}}", "/readyz", "/metrics"),
        ("{endpoints: {livez: null, readyz: /a/readyz}, metrics: {enabled: true}}", "/readyz", "/metrics"),
        ("{endpoints: null, metrics: {enabled: false}}", "/readyz", ""),
    ],
)
def test_a_service_may_have_its_probe_and_its_counters_elsewhere(
    config: str, ready: str, metrics: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a prefix, as it names them, or not at all. It never became ready, and its counters were for callers."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos/m/v1"
    folder.mkdir(parents=True)
    mounted = ", ".join(f"{path}: {{mounted: true}}" for path in ("/app/ready", "/app/readyz", "/app/livez"))
    (folder / "bento.yaml").write_text(
        f"entry_service: M\nservices: [{{name: D}}, {{name: M, config: {config}}}]\n"
        f"schema: {{paths: {{/ask: {{mounted: false}}, {mounted}}}}}"
    )
    service = service_of("m:v1")
    assert (service.readiness.path, service.metrics_path) == (ready, metrics)


def test_a_process_has_the_common_bentos_and_counters_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BentoML adds up the counters of all processes of one home, and empties them when one begins."""
    home, own = tmp_path / "home", tmp_path / "own"
    for folder in ("bentos/summary/v1", "models", "prometheus_multiproc_dir", "prometheus_multiproc_dir.7-1"):
        (home / folder).mkdir(parents=True)
    monkeypatch.setenv("BENTOML_HOME", str(home))
    for _ in range(2):  # it is made again when the process begins again
        make_own_home(own)
    assert {entry.name for entry in own.iterdir()} == {"bentos", "models"}
    (own / "bentos" / "summary" / "v2").mkdir()
    assert (home / "bentos" / "summary" / "v2").is_dir()


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ("{apis: [{name: classify}]}", None),
        ("{apis: [{name: classify}], schema: {}}", None),
        ("{apis: [], schema: {}}", {}),
        ("{schema: {routes: []}}", {}),
        ("{schema: null}", {}),
        ("{schema: {routes: [{route: /a, input: {}}]}}", {"/a": {"route": "/a", "input": {}}}),
    ],
)
def test_a_bento_that_says_nothing_of_its_routes_is_told_from_one_without_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: str, expected: object
) -> None:
    """Of the former nothing is known; a release of the latter would leave stable's callers without an answer."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos/m/v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text(manifest)
    assert schemas_of("m:v1") == expected


@pytest.mark.parametrize(
    "manifest",
    [
        "[" * 5_000,
        "a: &a [" + "x, " * 9 + "x]\nb: &b [" + "*a, " * 9 + "*a]\nc: &c [" + "*b, " * 9 + "*b]\n"
        "d: &d [" + "*c, " * 9 + "*c]\ne: &e [" + "*d, " * 9 + "*d]\nf: &f [" + "*e, " * 9 + "*e]\nmodels: [{tag: *f}]",
        "models: &m [{tag: *m}]",
        "!!bool maybe",
        "x: " + ":".join(["1"] * 300) + ".5",
        "name: '" + "x" * 5 * 2**20 + "'",
    ],
)
def test_a_manifest_that_would_take_all_memory_is_refused(
    manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller reads it, whoever built the Bento."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos/s/v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text(manifest)
    for read in (models_of, service_of, schemas_of, bento_tag):
        with pytest.raises(SetupError, match="cannot be read"):
            read("s:v1")


@pytest.mark.parametrize(
    "tag", ["../../away:v1", "/etc:passwd", "m:../../v1", "m", "'m:'", "[1]", "{name: m, version: v1}", "5"]
)
def test_a_manifest_names_no_model_that_is_a_path(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files would be copied from, and to, wherever that leads."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    store(tmp_path, Labels(labels=("a",)))
    away = tmp_path / "away/v1"
    away.mkdir(parents=True)
    (away / "model.yaml").touch()
    (tmp_path / "bentos/m/v1/bento.yaml").write_text(f"models: [{{tag: {tag}}}]")
    with pytest.raises(SetupError, match="the models of m:v1 cannot be read"):
        models_of("m:v1")
    with pytest.raises(SetupError, match="there is no model"):
        model_folder(tag)


def test_no_secret_is_read_through_a_link_of_a_bento(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with these files is told on pages that all may read, and a version makes what links it likes."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "store"))
    store(tmp_path / "store", Labels(labels=("a",)))
    bento, secret = tmp_path / "store/bentos/m/v1", tmp_path / "token"
    python = bento / "env/python"
    python.mkdir(parents=True)
    readers = (wanted_by, models_of, lambda tag: list(wanted_by(tag).lines()), missing_of)
    for name in ("bento.yaml", "env/python/requirements.txt", "env/python/version.txt", "env/python/install.sh"):
        place, before = bento / name, (bento / name).read_bytes() if (bento / name).exists() else None
        for text in ("abc-secret", "-----BEGIN abc-secret\nx", "a: [abc-secret", "PIP_ARGS=(abc-secret)"):
            secret.write_text(text)
            place.unlink(missing_ok=True)
            place.symlink_to(secret)
            told = " ".join(map(said_by, readers, ["m:v1"] * len(readers)))
            assert "abc-secret" not in told
            assert "is a link" in told
        place.unlink()
        if before is not None:
            place.write_bytes(before)
    shutil.rmtree(bento / "env")
    (tmp_path / "elsewhere/python").mkdir(parents=True)
    (tmp_path / "elsewhere/python/requirements.txt").write_text("abc-secret")
    (bento / "env").symlink_to(tmp_path / "elsewhere")
    told = said_by(missing_of, "m:v1")
    assert "abc-secret" not in told
    assert "is behind one" in told


def missing_of(tag: str) -> str | None:
    return missing(wanted_by(tag))


def said_by(read: Callable[[str], object], tag: str) -> str:
    try:
        return str(read(tag))
    except SetupError as error:
        return f"{error.what} {error.saw}"


def test_a_store_that_lies_behind_a_link_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is in the folder of a Bento is its author's."""
    store(tmp_path / "store", Labels(labels=("a",)))
    (tmp_path / "link").symlink_to(tmp_path / "store")
    (tmp_path / "store/bentos/m/v2").symlink_to(tmp_path / "store/bentos/m/v1")
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "link"))
    assert [models_of(tag) for tag in ("m:v1", "m:v2")] == [["m:v1"]] * 2


CONFIG = "{entry_service: s, services: [{name: s, config: {traffic: {timeout: %s}}}]}"


@pytest.mark.parametrize(
    "manifest",
    [
        *(CONFIG % timeout for timeout in (".nan", ".inf", "-.inf", "-1", "0", "[]", "soon")),
        "{schema: {routes: [{route: predict}]}}",
        "{schema: {routes: [{route: 5}]}}",
        '{schema: {routes: [{route: "/a\\nb"}]}}',
        '{schema: {routes: [{route: "/a\\ud800"}]}}',
        f"{{schema: {{routes: [{{route: /{'a' * 3000}}}]}}}}",
        '{schema: {paths: {"/a\\0": {mounted: true}}}}',
        "{schema: {paths: [1]}}",
        "{schema: [1]}",
    ],
)
def test_a_manifest_that_no_gateway_could_follow_is_refused(
    manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway refuses all routes where one is wrong, so that each beat of the control loop failed."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos" / "m" / "v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text(manifest)
    with pytest.raises(SetupError, match=r"routes of m:v1 cannot be read"):
        service_of("m:v1")


def test_a_timeout_that_nobody_waits_for_is_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos" / "m" / "v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text(CONFIG % "1e300")
    assert service_of("m:v1").timeout_s == 24 * 3600


@pytest.mark.parametrize("schema", ["[1]", "{routes: 5}", "{paths: [1]}"])
def test_schemas_that_are_none_are_refused(schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos" / "m" / "v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text(f"schema: {schema}")
    with pytest.raises(SetupError, match=r"routes of m:v1 cannot be read"):
        schemas_of("m:v1")
