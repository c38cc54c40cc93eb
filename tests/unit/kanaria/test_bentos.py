"""Reading the local BentoML store."""

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
    """Add one version of the Bento m to the store; its model gives this kind of answer."""
    bento, model = home / "bentos/m" / version, home / "models/m" / version
    for folder in (bento, model):
        folder.mkdir(parents=True)
    (bento / "bento.yaml").write_text(f"services: [{{models: [{{tag: 'm:{version}'}}]}}]")
    (model / "model.yaml").touch()
    Schema(features=(Feature(name="x", minimum=0, maximum=1),), answer=answer).write(model)


def test_the_schema_of_the_first_version_compares_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bins and its tolerance are used."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    answer = Number(tolerance=2, edges=(10, 20))
    store(tmp_path, answer)
    assert comparison_schema_of("m:v1") == answer.model_dump_json()


def test_a_model_is_loaded_by_the_class_that_its_bento_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder where the command runs may be about another model, so its class is not used."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bentofile.yaml").write_text("args: {model: 'other:v1', implementation: 'other:Other'}")
    store(tmp_path, Number(tolerance=2, edges=(10, 20)))
    bento = tmp_path / "bentos/m/v1/bento.yaml"
    bento.write_text(f"{bento.read_text()}\nargs: {{implementation: 'own.model:Own'}}")
    assert implementation_for("m:v1") == ("own.model:Own", tmp_path / "bentos/m/v1/src")
    assert implementation_for("other:v1") == ("other:Other", tmp_path)
    with pytest.raises(SetupError, match="is for other"):
        implementation_for("third:v1")


@pytest.mark.parametrize(
    "bentofile", ["bentofile.yaml", "examples/diabetes/bentofile.yaml", "tests/chaos/bentofile.yaml"]
)
def test_a_bento_contains_the_packages_around_its_modules(bentofile: str) -> None:
    """Without its `__init__.py`, a folder would lose to another package of that name on PYTHONPATH."""
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
    """The schema travels in an environment variable, which cannot hold 128 KiB; labels compare as themselves."""
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
def test_a_tag_may_be_written_as_bentoml_accepts_it(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a version it means the newest one, and upper case means lower case."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    kind = Labels(labels=("a",))
    for version in ("v10", "v2"):
        store(tmp_path, kind, version)
    assert (bento_tag(written), model_tag(written)) == ("m:v2", "m:v2")


def test_the_newest_version_is_the_one_that_bentoml_calls_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BentoML's file `latest` names it, unless that version was deleted."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    for version in ("v1", "v2"):
        store(tmp_path, Labels(labels=("a",)), version)
    latest = tmp_path / "bentos/m/latest"
    for written, meant in (("v1", "m:v1"), ("gone", "m:v2"), ("", "m:v2")):
        latest.write_text(written)
        assert bento_tag("m") == meant


@pytest.mark.parametrize("written", ["n", "m:v3", ":v1", "", "m:v1:v1", "../m:v1", "m:latest:x"])
def test_an_unknown_tag_is_refused_with_the_list_of_existing_ones(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was typed, nothing outside the store is read."""
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
def test_a_foreign_or_damaged_bento_is_an_error_without_a_traceback(
    manifest: str, model: str, implementation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what is missing."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos/s/v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text(manifest)
    with pytest.raises(SetupError, match=model):
        model_of("s:v1")
    with pytest.raises(SetupError, match=implementation):
        implementation_of("s:v1")
    assert comparison_schema_of("s:v1") is None


def test_requests_about_a_task_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shadow version does not know the task and would answer 404. Submitting a task is a request like any other."""
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
    """The owner is informed whose certificate callers see."""
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


def test_the_routes_of_a_legacy_service_come_from_its_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest of a `bentoml.legacy.Service` lists no `svc.api` route.

    All routes were counted together and never copied.
    """
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
def test_a_damaged_api_description_is_an_error_without_a_traceback(
    description: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the version whose routes cannot be read."""
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
        ("{endpoints: {readyz: app/ready}}", "/app/ready", "/metrics"),  # of a mounted application
        ("{endpoints: {livez: /app/livez, readyz: /app/readyz}}", "/app/readyz", "/metrics"),  # mounted too
        ("{endpoints: {livez: /v1/livez, readyz: /app/ready}}", "/app/ready", "/v1/metrics"),  # with a prefix too
        ("{endpoints: {livez: /health, readyz: /v1/readyz}}", "/v1/readyz", "/v1/metrics"),
        ("{endpoints: {livez: /v1/livez, readyz: /health}}", "/v1/readyz", "/v1/metrics"),  # which nothing serves
        (
            "{endpoints: {livez: /health, readyz: /health}}",
            "/readyz",
            "/metrics",
        ),  # which nothing serves, while BentoML's own path exists
        ("{endpoints: {livez: /alive}}", "/readyz", "/metrics"),
        ("{endpoints: {livez: null, readyz: /a/readyz}, metrics: {enabled: true}}", "/readyz", "/metrics"),
        ("{endpoints: null, metrics: {enabled: false}}", "/readyz", ""),
    ],
)
def test_a_service_may_have_its_probe_and_its_metrics_at_other_paths(
    config: str, ready: str, metrics: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service may serve both behind a prefix, under its own names, or not serve metrics.

    Before, such a version never became ready, and callers could read its metrics.
    """
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


def test_a_process_shares_the_bentos_and_keeps_its_own_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BentoML adds up the metrics of all processes of one home folder and empties them when a process starts."""
    home, own = tmp_path / "home", tmp_path / "own"
    for folder in ("bentos/summary/v1", "models", "prometheus_multiproc_dir", "prometheus_multiproc_dir.7-1"):
        (home / folder).mkdir(parents=True)
    monkeypatch.setenv("BENTOML_HOME", str(home))
    for _ in range(2):  # it is created again when the process restarts
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
def test_unknown_routes_are_distinct_from_no_routes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: str, expected: object
) -> None:
    """If a manifest says nothing about routes, they are unknown.

    A release of one without routes would leave stable's callers without answers.
    """
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
def test_a_manifest_that_would_exhaust_the_memory_is_refused(
    manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller reads the manifest of any Bento, whoever built it."""
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
def test_a_model_tag_in_a_manifest_cannot_be_a_path(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise model files would be copied from and to wherever the path leads."""
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


def test_no_secret_is_read_through_a_link_in_a_bento(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors in these files appear on pages that everybody may read, and a version can create any link."""
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


def test_a_store_behind_a_link_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the content of a Bento's folder comes from the author of the Bento."""
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
def test_a_manifest_that_the_gateway_cannot_route_is_refused(
    manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway refuses all routes when one is wrong, so every tick of the control loop failed."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos" / "m" / "v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text(manifest)
    with pytest.raises(SetupError, match=r"routes of m:v1 cannot be read"):
        service_of("m:v1")


def test_an_absurdly_long_timeout_becomes_one_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos" / "m" / "v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text(CONFIG % "1e300")
    assert service_of("m:v1").timeout_s == 24 * 3600


@pytest.mark.parametrize("schema", ["[1]", "{routes: 5}", "{paths: [1]}"])
def test_malformed_schemas_are_refused(schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = tmp_path / "bentos" / "m" / "v1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text(f"schema: {schema}")
    with pytest.raises(SetupError, match=r"routes of m:v1 cannot be read"):
        schemas_of("m:v1")
