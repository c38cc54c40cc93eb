"""Which variables of the operator's environment a version gets."""

import pytest

from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.inherited import INSTALLER, as_reason, first_word, inherited, withheld

RUNS_BY = {"PATH": "/bin", "HOME": "/home/ann", "LC_ALL": "C", "TZ": "UTC", "OMP_NUM_THREADS": "2", "BENTOML_PORT": "1"}
SECRET = {"AWS_SECRET_ACCESS_KEY": "s3cret", "HF_TOKEN": "hf", "DATABASE_URL": "postgres://u:p@db"}


def test_a_program_gets_what_it_needs_to_run_and_no_secret() -> None:
    """Nothing else from the operator's environment passes."""
    assert inherited({**RUNS_BY, **SECRET}, ()) == RUNS_BY


def test_listed_variables_pass_by_name_and_by_pattern() -> None:
    assert inherited(SECRET, ("HF_*", "DATABASE_URL")).keys() == {"HF_TOKEN", "DATABASE_URL"}


@pytest.mark.parametrize("listed", [("*",), ("KANARIA_GRAFANA_TOKEN",)])
def test_kanarias_own_variables_never_pass(listed: tuple[str, ...]) -> None:
    """Its tokens are among them, and a Bento may put any name into its `envs`."""
    assert inherited({"KANARIA_GRAFANA_TOKEN": "t"}, listed) == {}


def test_a_proxy_address_passes_without_a_password() -> None:
    """An address with a password passes only when it is listed, and to what installs packages."""
    proxies = {"https_proxy": "http://ann:pw@proxy:3128", "http_proxy": "http://proxy:3128"}
    assert inherited(proxies, ()).keys() == {"http_proxy"}
    assert inherited(proxies, ("https_proxy",)) == inherited(proxies, INSTALLER) == proxies


def test_variables_that_do_not_pass_are_named_without_their_values() -> None:
    """Variables of the terminal are not listed.

    A failure that names a variable shows the message about that variable.
    """
    names = withheld({**RUNS_BY, **SECRET, "SHLVL": "1", "PIP_INDEX_URL": "https://u:p@index"}, ())
    assert names == ("AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "HF_TOKEN")
    assert "s3cret" not in first_word(names)
    assert as_reason(names, "KeyError: 'HF_TOKEN'").startswith("HF_TOKEN of the environment is not passed to it")
    assert as_reason(names, "exit code 1").startswith("3 variables of the environment are not passed to it")
    assert as_reason(("A(", "B["), "KeyError: 'A('").startswith("A( of the environment")
    assert as_reason((), "KeyError: 'HF_TOKEN'") == first_word(()) == ""


@pytest.mark.parametrize(("given", "names"), [("", ()), ("AWS_REGION, HF_*", ("AWS_REGION", "HF_*")), ("*", ("*",))])
def test_the_list_is_separated_by_commas(given: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANARIA_PASS_ENV", given)
    assert Settings().pass_env == names


@pytest.mark.parametrize("given", ["AWS REGION", "A=b", "--listed", "KANARIA_GRAFANA_TOKEN", "KANARIA*"])
def test_invalid_names_are_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANARIA_PASS_ENV", given)
    with pytest.raises(SetupError) as refused:
        Settings()
    assert refused.value.saw == f"KANARIA_PASS_ENV={given}"
