"""The file that lists versions that are not Bentos: what it may contain, and each mistake that is reported."""

from pathlib import Path

import pytest

from kanaria.errors import SetupError
from kanaria.stack.listed import Listed, read_listed
from kanaria.stack.versions import Versions
from rollout.fleet import Backend, Readiness, Route

TAG = "flask:v1"
GOOD = "flask:v1: {command: 'serve --port {port}'}"


def written(folder: Path, text: str) -> Path:
    path = folder / "versions.yaml"
    path.write_text(text)
    return path


def listed(folder: Path, text: str, tag: str = TAG) -> Listed:
    return read_listed(written(folder, text))[tag]


def test_a_command_is_filled_in_and_starts_in_the_folder_of_the_file(tmp_path: Path) -> None:
    """It may be a text, which is split like a shell command, or a list. Other braces stay as they are."""
    text = """
    flask:v1:
      command: >-
        serve --bind {host}:{port} --with '{"a": 1}'
      environment: {PORT: "{port}"}
    """
    found = listed(tmp_path, text)
    assert found.words(5005) == ["serve", "--bind", "127.0.0.1:5005", "--with", '{"a": 1}']
    assert (found.variables(5005), found.folder) == ({"PORT": "5005"}, tmp_path)
    other = listed(tmp_path, "flask:v1: {command: [serve, a b, '{port}'], folder: models}")
    assert (other.words(5005), other.folder) == (["serve", "a b", "5005"], tmp_path / "models")


def test_by_default_any_answer_means_ready_and_every_request_passes(tmp_path: Path) -> None:
    """An application may have no page at `/`."""
    service = listed(tmp_path, GOOD).service
    assert (service.routes, service.timeout_s, service.keeps_contract) == ((), 60.0, False)
    assert service.readiness == Readiness("/", below=500)
    assert not listed(tmp_path, GOOD).backend(TAG, 5005).has_metrics


def test_declared_readiness_and_routes_are_used(tmp_path: Path) -> None:
    """A declared readiness path must answer with success: the Open Inference Protocol answers 400 for not ready."""
    text = """
    flask:v1:
      url: http://model.internal:8000
      ready: /v2/health/ready
      timeout: 5m
      routes: [/predict, "/users/{id}"]
      streams: [/words]
      metrics: true
    """
    found = listed(tmp_path, text)
    assert found.service.readiness == Readiness("/v2/health/ready", below=300)
    assert found.service.timeout_s == 300
    assert found.service.routes == (Route("/predict"), Route("/users/{id}"), Route("/words", is_streamed=True))
    assert found.backend(TAG) == Backend(TAG, "model.internal", 8000, has_metrics=True)


@pytest.mark.parametrize(
    ("url", "backend", "address"),
    [
        ("http://10.0.0.5", Backend(TAG, "10.0.0.5", 80, has_metrics=False), "10.0.0.5:80"),
        ("http://10.0.0.5:8000/", Backend(TAG, "10.0.0.5", 8000, has_metrics=False), "10.0.0.5:8000"),
        ("http://bücher.de.:80", Backend(TAG, "bücher.de.", 80, has_metrics=False), "bücher.de.:80"),
        ("http://my_model:8000", Backend(TAG, "my_model", 8000, has_metrics=False), "my_model:8000"),
        (f"http://{'a' * 63}:1", Backend(TAG, "a" * 63, 1, has_metrics=False), f"{'a' * 63}:1"),
        ("http://[::1]:8000", Backend(TAG, "::1", 8000, has_metrics=False), "[::1]:8000"),
    ],
)
def test_a_url_is_a_host_and_a_port(url: str, backend: Backend, address: str, tmp_path: Path) -> None:
    """Without a port it means the default port of HTTP."""
    found = listed(tmp_path, f"flask:v1: {{url: '{url}'}}").backend(TAG)
    assert (found, found.address, found.url) == (backend, address, f"http://{address}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flask:v1: {comand: 'serve {port}'}", "`comand` is not a key here; did you mean `command`?"),
        ("flask:v1: {command: serve --port 80}", "write {port} in `command` or `environment`"),
        ("flask:v1: {command: 'serve {port}', url: 'http://a:1'}", "write either `command`"),
        ("flask:v1: {}", "write either `command`"),
        ("flask:v1:", "write keys with values"),
        ("flask:v1: {command: []}", "write at least 1 of them"),
        ("flask:v1: {command: 'serve \"{port}'}", "it cannot be split into words"),
        ("flask:v1: {command: [serve, 8, '{port}']}", "in quotes if it looks like a number"),
        ("flask:v1: {command: 'serve {port}', environment: {A: 1}}", "in quotes if it looks like a number"),
        ("flask:v1: {url: 'https://a:1'}", "put a proxy that adds TLS between them"),
        ("flask:v1: {url: 'http://a:1/predict'}", "write only scheme, host and port"),
        ("flask:v1: {url: 'http://a:1?b=c'}", "write only scheme, host and port"),
        ("flask:v1: {url: 'http://ann:secret@a:1'}", "write an address such as"),
        ("flask:v1: {url: 'http://a:99999'}", "write an address such as"),
        ("flask:v1: {url: 'a:1'}", "write an address such as"),
        (
            "flask:v1: {url: 'http://a..b:80'}",
            "a..b is not a valid host name: it needs 1 to 63 characters between its dots",
        ),
        ("flask:v1: {url: 'http://.a:80'}", ".a is not a valid host name"),
        ("flask:v1: {url: 'http://.'}", ". is not a valid host name"),
        (f"flask:v1: {{url: 'http://{'a' * 64}.de'}}", f"{'a' * 64}.de is not a valid host name"),
        (f"flask:v1: {{url: 'http://de.{'a' * 64}:1'}}", f"de.{'a' * 64} is not a valid host name"),
        (f"flask:v1: {{url: 'http://{'ü' * 63}'}}", f"{'ü' * 63} is not a valid host name"),
        ("flask:v1: {url: 'http://a:1', folder: models}", "`folder` goes with `command`"),
        ("flask:v1: {command: 'serve {port}', ready: health}", "write a path that begins with /"),
        ("flask:v1: {command: 'serve {port}', timeout: 60 minutes}", "write a duration such as"),
        ("flask:v1: {command: 'serve {port}', routes: [/a, /b], streams: [/a]}", "/a is listed twice"),
        ("flask:v1: {command: 'serve {port}', routes: [/metrics]}", "the gateway does not pass /metrics"),
        ("flask:v1: {command: 'serve {port}', routes: ['/a b']}", "write a path that begins with /"),
        ("flask: {command: 'serve {port}'}", "'flask' is not a tag"),
        ("Flask:v1: {command: 'serve {port}'}", "'Flask:v1' is not a tag"),
        ("../flask:v1: {command: 'serve {port}'}", "is not a tag"),
        ("5: {command: 'serve {port}'}", "'5' is not a tag"),
        ("- flask:v1", "it is not a mapping of keys to values"),
        (f"{GOOD}\n{GOOD}", "line 2: `flask:v1` is there twice"),
        ("a:b: &a {url: 'http://a:1'}\nc:d: *a", "aliases (`*name`) are not allowed"),
        ("[" * 10_000, "nested too deeply"),
        ("flask:v1: [", "line 1"),
        ("flask:v1: 2001-99-99", "month must be in 1..12"),
        ("? [1]\n: 2", "unhashable key"),
        ("#" * 2**21, "more than 1 MiB"),
        ("\x00", "not allowed"),
    ],
)
def test_every_mistake_is_reported(text: str, words: str, tmp_path: Path) -> None:
    """The error gives the place and what to write instead."""
    with pytest.raises(SetupError) as found:
        read_listed(written(tmp_path, text))
    assert words in found.value.saw
    assert "KANARIA_VERSIONS" in found.value.what


def test_a_missing_file_is_reported() -> None:
    """The error names the setting of the file."""
    with pytest.raises(SetupError, match="No such file"):
        read_listed(Path("/nowhere/versions.yaml"))


def test_a_missing_program_or_folder_is_reported_before_the_start(tmp_path: Path) -> None:
    """Relative paths are resolved in the folder of the entry."""
    (tmp_path / "serve").touch(mode=0o755)
    assert listed(tmp_path, "flask:v1: {command: './serve {port}'}").obstacle is None
    assert listed(tmp_path, "flask:v1: {command: 'sh {port}'}").obstacle is None
    assert listed(tmp_path, "flask:v1: {url: 'http://a:1'}").obstacle is None
    missing = listed(tmp_path, "flask:v1: {command: './gone {port}'}")
    assert missing.obstacle == "there is no program ./gone"
    elsewhere = listed(tmp_path, "flask:v1: {command: 'sh {port}', folder: gone}")
    assert elsewhere.obstacle == f"there is no folder {tmp_path / 'gone'}"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with the Bento m:v1, beside which a file can list other versions."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    bento = tmp_path / "bentos/m/v1/bento.yaml"
    bento.parent.mkdir(parents=True)
    bento.write_text("schema: {routes: [{route: /summarize}]}")
    return tmp_path


def test_listed_versions_and_bentos_are_known_together(store: Path) -> None:
    """`name` and `name:latest` mean the last entry of the list or the newest Bento."""
    file = written(store, f"{GOOD}\nflask:v2: {{url: 'http://a:1'}}")
    versions = Versions(file)
    assert versions.tags() == ("flask:v1", "flask:v2", "m:v1")
    given = ("flask", "Flask:latest", "flask:v1", "m", "m:v1")
    assert [versions.full_tag(tag) for tag in given] == ["flask:v2", "flask:v2", "flask:v1", "m:v1", "m:v1"]
    assert (versions.schemas("flask:v1"), versions.schemas("m:v1")) == (None, {"/summarize": {"route": "/summarize"}})
    assert versions.service("m:v1").routes == (Route("/summarize"),)
    with pytest.raises(SetupError, match=r"no version flask:v3; did you mean `flask:v[12]`\?"):
        versions.full_tag("flask:v3")


def test_one_tag_is_one_version(store: Path) -> None:
    """Otherwise the released version would be ambiguous.

    If both kinds share a name, the newest version is undefined.
    """
    with pytest.raises(SetupError, match="m:v1 is the tag of two versions"):
        Versions(written(store, "m:v1: {url: 'http://a:1'}")).tags()
    with pytest.raises(SetupError, match="write the full tag"):
        Versions(written(store, "m:v2: {url: 'http://a:1'}")).full_tag("m")


def test_a_file_with_the_default_name_is_ignored_without_the_setting(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may belong to somebody else."""
    written(store, "not: ours")
    monkeypatch.chdir(store)
    assert Versions(None).tags() == ("m:v1",)
