"""Grafana's boards as code: what every panel has, and that the committed files are these boards."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.boardcheck import metrics_of
from monitoring.dashboards import Board, boards
from monitoring.dashboards.style import DATA_SOURCE_UID
from monitoring.prometheus import RULES
from monitoring.provisioning import BOARDS_IN_GRAFANA, GENERATED, TOKEN_IN_CONTAINERS, generated_files

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks" / "alerts.md"
RANGES = {"$__rate_interval": "1m", "$__range": "1h"}


def panels() -> list[Any]:
    return [
        pytest.param(panel, id=f"{board.uid}: {panel['title']}")
        for board in boards()
        for panel in board.document["panels"]
        if panel["type"] != "row"
    ]


every_panel = pytest.mark.parametrize("panel", panels())
every_board = pytest.mark.parametrize("board", boards(), ids=lambda board: board.uid)


def _metrics(panel: dict[str, Any], *, only: dict[str, Any] | None = None) -> set[str]:
    """The metrics that a panel, or only one of its targets, reads. Raises ValueError for what is no PromQL."""
    names: set[str] = set()
    for target in [only] if only else panel["targets"]:
        query = target["expr"]
        for name, value in RANGES.items():
            query = query.replace(name, value)
        names |= metrics_of(query)
    return names


def test_the_committed_files_are_what_the_code_makes() -> None:
    """After a change of the code: `kanaria dashboards generate`."""
    committed = {str(path.relative_to(GENERATED)): path.read_text() for path in GENERATED.rglob("*") if path.is_file()}
    assert committed == generated_files()


@every_panel
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    """A description in words, a unit, thresholds, and the data source of this deployment."""
    defaults = panel["fieldConfig"]["defaults"]
    assert len(panel["description"].split()) >= 6
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert panel["datasource"]["uid"] == DATA_SOURCE_UID


@every_panel
def test_a_panel_links_to_its_runbook_and_to_the_status_page(panel: dict[str, Any]) -> None:
    """The runbook's heading exists; what else is linked is a page of the controller."""
    runbook, status, *pages = (link["url"] for link in panel["links"])
    base, _, anchor = runbook.partition("#")
    headings = [line[3:].lower() for line in RUNBOOKS.read_text().splitlines() if line.startswith("## ")]
    assert base == "${runbooks:raw}"
    assert anchor in ("", *headings)
    assert status == "${controller:raw}/"
    assert all(page.startswith(("${controller:raw}/releases/", "${controller:raw}/drift/")) for page in pages)


@every_panel
def test_a_panel_asks_in_promql(panel: dict[str, Any]) -> None:
    """Every query can be parsed and reads at least one metric."""
    assert all(_metrics(panel, only=target) for target in panel["targets"])


def test_every_series_of_an_objective_is_recorded() -> None:
    """What a board asks of the rules, the rules make."""
    rules = [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    recorded = {rule.get("record") for rule in rules}
    asked = {name for (panel,) in (given.values for given in panels()) for name in _metrics(panel) if ":" in name}
    assert asked
    assert asked <= recorded


@every_board
def test_a_board_has_a_stable_uid_and_numbered_panels(board: Board) -> None:
    """Links to a board and to a panel of it stay valid when it is made anew."""
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
    """The addresses are constants of the board; everything else stays."""
    (overview, *_) = boards()
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
    """Functions, labels and matchers are none."""
    assert metrics_of(query) == names


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return document


def mounts(service: str) -> dict[str, str]:
    """Path in the container -> path here, of what is mounted from the repository."""
    volumes = (volume.split(":") for volume in compose()["services"][service]["volumes"])
    return {inside: outside for outside, inside, *_ in volumes if outside.startswith("./")}


@pytest.mark.parametrize("service", ["grafana", "prometheus", "alertmanager"])
def test_compose_mounts_what_the_repository_has(service: str) -> None:
    """And each image has a version."""
    assert mounts(service)
    assert all((ROOT / outside).exists() for outside in mounts(service).values())
    assert compose()["services"][service]["image"].rpartition(":")[2] not in ("", "latest")


def test_the_grafana_of_compose_reads_the_generated_boards() -> None:
    """The provider looks where the boards are mounted, and the first page is one of them."""
    generated = generated_files()
    (provider,) = yaml.safe_load(generated["provisioning/dashboards/kanaria.yaml"])["providers"]
    grafana = compose()["services"]["grafana"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert provider["options"]["path"] == BOARDS_IN_GRAFANA
    assert (ROOT / mounts("grafana")[BOARDS_IN_GRAFANA]).resolve() == GENERATED / "dashboards"
    assert (ROOT / mounts("grafana")["/etc/grafana/provisioning"]).resolve() == GENERATED / "provisioning"
    assert home.removeprefix(f"{BOARDS_IN_GRAFANA}/") in {path.partition("/")[2] for path in generated}


def test_the_files_of_compose_agree_on_addresses_and_uids() -> None:
    """Boards ask the provisioned data source, which is where Prometheus listens; the token is where it is mounted."""
    generated, services = generated_files(), compose()["services"]
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
    assert str(TOKEN_IN_CONTAINERS) in generated["alertmanager.yml"]


def test_the_token_never_stands_in_a_generated_file() -> None:
    """Only the path of the file that holds it."""
    contact = yaml.safe_load(generated_files()["provisioning/alerting/kanaria.yaml"])["contactPoints"][0]
    credentials = contact["receivers"][0]["settings"]["authorization_credentials"]
    assert json.dumps(credentials) == f'"$__file{{{TOKEN_IN_CONTAINERS}}}"'
