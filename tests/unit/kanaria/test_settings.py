"""Settings come from the environment and from the running stack."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.fleet import server_environment
from kanaria.stack.inherited import inherited


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of a stack that started on its own ports, seen from another terminal."""
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path))
    monkeypatch.delenv("KANARIA_GATEWAY_PORT", raising=False)
    monkeypatch.delenv("KANARIA_CONTROLLER_PORT", raising=False)
    Settings(gateway_port=9080, controller_port=9090).remember_where_it_listens()
    return tmp_path


def test_later_commands_know_the_ports_of_the_running_stack(home: Path) -> None:
    """`kanaria status` in another terminal finds the controller."""
    assert (Settings().gateway_port, Settings().controller_port) == (9080, 9090)


def test_a_port_in_the_environment_overrides_the_stack(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person sets now counts more than what was set at `up`."""
    monkeypatch.setenv("KANARIA_CONTROLLER_PORT", "9191")
    assert (Settings().gateway_port, Settings().controller_port) == (9080, 9191)


def test_variable_names_may_be_lower_case(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument overrides every variable."""
    monkeypatch.setenv("kanaria_controller_port", "9191")
    assert (Settings().controller_port, Settings(controller_port=9292).controller_port) == (9191, 9292)


def test_another_state_folder_has_its_own_ports(home: Path, tmp_path: Path) -> None:
    """Two stacks on one machine do not mix."""
    assert Settings(home=tmp_path / "another").controller_port == 8090


def test_the_next_stack_starts_with_the_defaults(home: Path) -> None:
    """`kanaria down` ends the settings that `up` was given."""
    Settings().forget_where_it_listens()
    assert (Settings().gateway_port, Settings().controller_port) == (8080, 8090)


@pytest.mark.parametrize("kept", ['{"gateway_port": 90', "[1]", "null"])
def test_a_truncated_settings_file_is_reported(kept: str, home: Path) -> None:
    """The error says which file and what to do."""
    (home / "listening.json").write_text(kept)
    with pytest.raises(SetupError, match=r"(?s)listening\.json.*remove that file"):
        Settings()


@pytest.mark.parametrize("name", ["HOME", "GATEWAY_PORT"])
def test_an_empty_variable_counts_as_not_set(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`KANARIA_HOME=` must not make the current folder the state folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KANARIA_HOME", raising=False)
    monkeypatch.setenv(f"KANARIA_{name}", "")
    assert Settings().root == tmp_path / ".kanaria"


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """The refusal comes before any command does half of its work."""
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="file is not a folder"):
        Settings(home=tmp_path / "file")


def test_reading_the_token_does_not_create_it(home: Path) -> None:
    """A command that only reads leaves the state folder unchanged."""
    assert (Settings().known_token, Settings().token_file.exists()) == ("", False)
    token = Settings().token
    assert Settings().known_token == token


@pytest.mark.parametrize(
    ("host", "address", "url"),
    [
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:8090"),
        ("localhost", "127.0.0.1", "http://127.0.0.1:8090"),
        ("::1", "::1", "http://[::1]:8090"),
        ("[::1]", "::1", "http://[::1]:8090"),
        ("::", "::", "http://[::1]:8090"),
        ("0.0.0.0", "0.0.0.0", "http://127.0.0.1:8090"),  # noqa: S104 - nothing listens
    ],
)
def test_a_host_name_is_resolved_to_an_address_at_once(host: str, address: str, url: str, tmp_path: Path) -> None:
    """All parts use the same address, and this machine can reach a service that listens on all addresses."""
    settings = Settings(home=tmp_path, controller_host=host)
    assert (settings.controller_host, settings.controller_url) == (address, url)
    assert Settings(home=tmp_path, host=host).gateway_url == url.replace("8090", "8080")


def test_a_gateway_on_the_network_does_not_open_the_controller(tmp_path: Path) -> None:
    """The controller shows everything to everybody who can reach it, and accepts commands."""
    settings = Settings(home=tmp_path, host="0.0.0.0")  # noqa: S104 - nothing listens
    assert (settings.host, settings.controller_host) == ("0.0.0.0", "127.0.0.1")  # noqa: S104 - nothing listens


def test_no_version_inherits_the_tokens_of_the_person_who_started_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's code can read its environment."""
    for name in ("KANARIA_MY_TOKEN", "KANARIA_GRAFANA_TOKEN"):
        monkeypatch.setenv(name, "secret")
    given = server_environment(Settings(home=tmp_path), "m:v1", records=tmp_path)
    assert "KANARIA_MY_TOKEN" not in inherited(os.environ, ("*",)) | given
    assert "secret" not in (inherited(os.environ, ("*",)) | given).values()


@pytest.mark.parametrize("host", ["nowhere.invalid", "1.2.3.4.5", "http://127.0.0.1", "a b", "x" * 300, "::1:::"])
def test_an_invalid_host_is_refused_when_the_settings_are_read(host: str, tmp_path: Path) -> None:
    """The error names the setting before anything starts."""
    with pytest.raises(SetupError) as refused:
        Settings(home=tmp_path, host=host)
    assert f"KANARIA_HOST={host}: " in refused.value.saw
    with pytest.raises(SetupError) as refused:
        Settings(home=tmp_path, controller_host=host)
    assert f"KANARIA_CONTROLLER_HOST={host}: " in refused.value.saw


@pytest.mark.parametrize(
    ("origins", "named"),
    [
        ("", ()),
        ("https://shop.example, HTTP://localhost:3000", ("https://shop.example", "http://localhost:3000")),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("*", ("*",)),
    ],
)
def test_origins_are_written_as_a_browser_sends_them(
    origins: str, named: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commas separate several origins, and case does not matter."""
    monkeypatch.setenv("KANARIA_CORS_ORIGINS", origins)
    assert Settings().cors_origins == named


@pytest.mark.parametrize(
    "origin",
    [
        "shop.example", "https://shop.example/", "https://shop.example/a", "https://shop.example:443", "null",
        "http://a:99999", "ftp://a", "https://*.example", "https://u:p@a", "https://bücher.example", "https://",
        "https:/a",
    ],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_refused(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would never match, and the author of the page would look elsewhere for the fault."""
    monkeypatch.setenv("KANARIA_CORS_ORIGINS", f"https://good.example,{origin}")
    with pytest.raises(SetupError) as refused:
        Settings()
    assert refused.value.saw == f"KANARIA_CORS_ORIGINS has {origin}"


def test_only_services_of_the_contract_get_a_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another service sets its own number, even if it has the same name as the contract's service."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    for version, arguments in (("own", "{}"), ("contract", "{implementation: a.b:C}")):
        folder = tmp_path / "bentos/m" / version
        folder.mkdir(parents=True)
        (folder / "bento.yaml").write_text(f"entry_service: predictor\nargs: {arguments}")
        given = server_environment(Settings(home=tmp_path, workers=2), f"m:{version}", records=tmp_path)
        assert ("BENTOML_CONFIG_OVERRIDES" in given) == (version == "contract")


def test_other_services_of_one_stack_have_the_same_set_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, `list({...})` in an answer made two versions with equal code differ.

    Stable never differed from itself.
    """
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    for version in ("v1", "v2"):
        folder = tmp_path / "bentos/own" / version
        folder.mkdir(parents=True)
        (folder / "bento.yaml").write_text("schema: {routes: [{route: /ask}]}")
    homes = [Settings(home=tmp_path / name) for name in ("one", "one", "another")]
    environments = [
        server_environment(home, f"own:{version}", records=tmp_path)
        for home, version in zip(homes, ("v1", "v2", "v1"), strict=True)
    ]
    code = "print({str(number) for number in range(99)})"
    orders = [subprocess.check_output([sys.executable, "-c", code], env=each) for each in environments]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    (tmp_path / "bentos/own/contract").mkdir()
    (tmp_path / "bentos/own/contract/bento.yaml").write_text("args: {implementation: model:Model}")
    # Answers of the contract contain no sets.
    assert "PYTHONHASHSEED" not in server_environment(homes[0], "own:contract", records=tmp_path)
    monkeypatch.setenv("PYTHONHASHSEED", "7")  # a person's setting is kept
    assert "PYTHONHASHSEED" not in server_environment(homes[0], "own:v1", records=tmp_path)
