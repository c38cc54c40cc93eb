"""Grafana's dashboards as code: what every panel has, and that the committed files match the code."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kanaria.stack.signal_graphs import signal_graphs
from monitoring.grafana.check import metrics_of
from monitoring.grafana.dashboards import Board, boards
from monitoring.grafana.dashboards.style import DATA_SOURCE_UID
from monitoring.grafana.provisioning import (
    ALERTS_TOKEN_IN_CONTAINERS,
    BOARDS_IN_GRAFANA,
    GENERATED,
    TOKEN_IN_CONTAINERS,
    generated_files,
)
from monitoring.prometheus.configuration import RULES
from tests.support.paths import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks" / "alerts.md"
RANGES = {"$__rate_interval": "1m", "$__range": "1h"}


def panels() -> list[Any]:
    return [
        pytest.param(panel, id=f"{board.uid}: {panel['title']}")
        for board in boards(signal_graphs())
        for panel in board.document["panels"]
        if panel["type"] != "row"
    ]


every_panel = pytest.mark.parametrize("panel", panels())
every_board = pytest.mark.parametrize("board", boards(signal_graphs()), ids=lambda board: board.uid)


def _metrics(panel: dict[str, Any], *, only: dict[str, Any] | None = None) -> set[str]:
    """The metrics that a panel, or only one of its targets, reads. Raises ValueError when a query is not PromQL."""
    names: set[str] = set()
    for target in [only] if only else panel["targets"]:
        query = target["expr"]
        for name, value in RANGES.items():
            query = query.replace(name, value)
        names |= metrics_of(query)
    return names


def test_the_committed_files_are_what_the_code_makes() -> None:
    """If this fails, run `kanaria dashboards generate`."""
    committed = {str(path.relative_to(GENERATED)): path.read_text() for path in GENERATED.rglob("*") if path.is_file()}
    assert committed == generated_files(signal_graphs())


@every_panel
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    """It has a description, a unit, thresholds, and Kanaria's data source."""
    defaults = panel["fieldConfig"]["defaults"]
    assert len(panel["description"].split()) >= 6
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert panel["datasource"]["uid"] == DATA_SOURCE_UID


@every_panel
def test_a_panel_links_to_its_runbook_and_to_the_status_page(panel: dict[str, Any]) -> None:
    """The runbook's heading exists, and all other links lead to pages of the controller."""
    runbook, status, *pages = (link["url"] for link in panel["links"])
    base, _, anchor = runbook.partition("#")
    headings = [line[3:].lower() for line in RUNBOOKS.read_text().splitlines() if line.startswith("## ")]
    assert base == "${runbooks:raw}"
    assert anchor in ("", *headings)
    assert status == "${controller:raw}/"
    assert all(page.startswith(("${controller:raw}/releases/", "${controller:raw}/drift/")) for page in pages)


@every_panel
def test_a_panels_queries_are_promql(panel: dict[str, Any]) -> None:
    """Every query can be parsed and reads at least one metric."""
    assert all(_metrics(panel, only=target) for target in panel["targets"])


def test_every_series_of_an_objective_is_recorded() -> None:
    """The rules record every series that a board reads from them."""
    rules = [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    recorded = {rule.get("record") for rule in rules}
    asked = {name for (panel,) in (given.values for given in panels()) for name in _metrics(panel) if ":" in name}
    assert asked
    assert asked <= recorded


@every_board
def test_a_board_has_a_stable_uid_and_numbered_panels(board: Board) -> None:
    """Links to a board and to its panels stay valid when it is generated again."""
    document = board.document
    assert document["uid"] == board.uid
    assert [panel["id"] for panel in document["panels"]] == list(range(1, len(document["panels"]) + 1))
    assert board.json == board.json


@every_board
def test_no_two_panels_of_a_board_overlap(board: Board) -> None:
    """Every cell of the grid, 24 wide, belongs to one panel at most."""
    cells: list[tuple[int, int]] = []
    for panel in board.document["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells += [(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])]
    assert len(cells) == len(set(cells))


def test_a_board_can_be_made_for_another_controller() -> None:
    """The addresses are constants of the board; everything else stays the same."""
    (overview, *_) = boards(signal_graphs())
    constants = {
        variable["name"]: variable["query"]
        for variable in overview.at("https://canary.example/").document["templating"]["list"]
        if variable["type"] == "constant"
    }
    assert constants == {"controller": "https://canary.example", "runbooks": "https://canary.example/runbooks"}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("up", {"up"}),
        (
            'sum by (a) (rate(b_total{c="d"}[5m])) / on (e) group_left () slo:f:ratio or vector(0)',
            {"b_total", "slo:f:ratio"},
        ),
        ("time() - max_over_time(g[1h:1m] offset 1d)", {"g"}),
    ],
)
def test_the_metrics_of_a_query_are_its_selectors(query: str, names: set[str]) -> None:
    """Functions, labels and matchers do not count."""
    assert metrics_of(query) == names


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return document


def mounts(service: str) -> dict[str, str]:
    """Path in the container -> path here, for everything that is mounted from the repository."""
    volumes = (volume.split(":") for volume in compose()["services"][service]["volumes"])
    return {inside: outside for outside, inside, *_ in volumes if outside.startswith("./")}


@pytest.mark.parametrize("service", ["grafana", "prometheus", "alertmanager"])
def test_compose_mounts_files_of_the_repository(service: str) -> None:
    """Every mounted path exists, and each image has a version."""
    assert mounts(service)
    assert all((ROOT / outside).exists() for outside in mounts(service).values())
    assert compose()["services"][service]["image"].rpartition(":")[2] not in ("", "latest")


def test_the_grafana_of_compose_reads_the_generated_boards() -> None:
    """The provider reads the folder where the boards are mounted, and the home page is one of them."""
    generated = generated_files(signal_graphs())
    (provider,) = yaml.safe_load(generated["provisioning/dashboards/kanaria.yaml"])["providers"]
    grafana = compose()["services"]["grafana"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert provider["options"]["path"] == BOARDS_IN_GRAFANA
    assert (ROOT / mounts("grafana")[BOARDS_IN_GRAFANA]).resolve() == GENERATED / "dashboards"
    assert (ROOT / mounts("grafana")["/etc/grafana/provisioning"]).resolve() == GENERATED / "provisioning"
    assert home.removeprefix(f"{BOARDS_IN_GRAFANA}/") in {path.partition("/")[2] for path in generated}


def test_the_files_of_compose_agree_on_addresses_and_uids() -> None:
    """Boards use the provisioned data source, Prometheus listens at its address, and the token's path is mounted."""
    generated, services = generated_files(signal_graphs()), compose()["services"]
    (source,) = yaml.safe_load(generated["provisioning/datasources/kanaria.yaml"])["datasources"]
    assert source["uid"] == DATA_SOURCE_UID
    assert f"--web.listen-address={source['url'].removeprefix('http://')}" in services["prometheus"]["command"]
    prometheus = yaml.safe_load(generated["prometheus.yml"])
    (alertmanager,) = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert f"--web.listen-address={alertmanager}" in services["alertmanager"]["command"]
    for rules in map(Path, prometheus["rule_files"]):
        assert (ROOT / mounts("prometheus")[str(rules.parent)] / rules.name).exists()
    assert str(TOKEN_IN_CONTAINERS) == f"/run/secrets/{services['grafana']['secrets'][0]}"
    assert str(TOKEN_IN_CONTAINERS) in generated["provisioning/alerting/kanaria.yaml"]
    assert str(ALERTS_TOKEN_IN_CONTAINERS) == f"/run/secrets/{services['alertmanager']['secrets'][0]}"
    assert str(ALERTS_TOKEN_IN_CONTAINERS) in generated["alertmanager.yml"]


def test_the_compose_stack_has_no_default_password_and_minimal_rights() -> None:
    """Each secret must be given, and the token of its Alertmanager allows only to pass on alerts."""
    text, document = (ROOT / "compose.yaml").read_text(), compose()
    secret = {name for name in re.findall(r"\$\{?(\w+)", text) if name.endswith(("TOKEN", "PASSWORD", "SECRET"))}
    required = set(re.findall(r"\$\{(\w+):\?", " ".join(document["x-given"])))
    assert secret == required == {"KANARIA_TOKEN", "KANARIA_ALERTS_TOKEN", "KANARIA_VERSION_SECRET", "GRAFANA_PASSWORD"}
    assert not re.search(r"(TOKEN|PASSWORD|SECRET):?-", text)
    assert document["services"]["alertmanager"]["secrets"] == ["kanaria-alerts-token"]
    assert document["secrets"]["kanaria-alerts-token"] == {"environment": "KANARIA_ALERTS_TOKEN"}


def test_no_generated_file_contains_the_token() -> None:
    """It has only the path of the token file."""
    text = generated_files(signal_graphs())["provisioning/alerting/kanaria.yaml"]
    contact = yaml.safe_load(text)["contactPoints"][0]
    credentials = contact["receivers"][0]["settings"]["authorization_credentials"]
    assert json.dumps(credentials) == f'"$__file{{{TOKEN_IN_CONTAINERS}}}"'
