"""`kanaria dashboards check` against a real Prometheus: which panels it accepts, and which it reports as faults."""

import subprocess
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from kanaria.stack.ports import free_port
from monitoring.errors import NothingToCheck, PrometheusUnreachable
from monitoring.grafana.check import Finding, State, check
from monitoring.grafana.dashboards.board import Board, Row, Variable
from monitoring.grafana.dashboards.needs import Needs
from monitoring.grafana.dashboards.panels import graph
from monitoring.grafana.dashboards.style import GOOD, About, Query
from monitoring.prometheus.api import PrometheusApi, Span
from tests.support.children import started

END_S = 1_700_000_000.0  # the time of the last sample; the real time does not matter
SPAN = Span(END_S - 300, END_S)
STEP_S = 5


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]
) -> Iterator[PrometheusApi]:
    """A Prometheus with five minutes of a gateway's requests from long ago."""
    folder = tmp_path_factory.mktemp("prometheus")
    lines = ["# TYPE envoy_kanaria_predict counter"]
    for place in range(61):
        at_s = END_S - 300 + place * STEP_S
        lines.append(f'envoy_kanaria_predict_total{{version="m:v1",code="200"}} {place * 50} {at_s:.0f}')
    lines += ["# TYPE kanaria_release_info gauge"]
    lines += [f'kanaria_release_info{{release="{n}",canary="m:v{n}"}} 1 {END_S - 100 + n:.0f}' for n in (9, 10)]
    (folder / "samples").write_text("\n".join([*lines, "# EOF", ""]))
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 5s}\n")
    filled = [require_program("promtool"), "tsdb", "create-blocks-from", "openmetrics", "samples", "data"]
    subprocess.run(filled, cwd=folder, check=True, capture_output=True, timeout=60)
    address = f"127.0.0.1:{free_port()}"
    command = [
        require_program("prometheus"),
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log, started(command, cwd=folder, stdout=log, stderr=log):
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"http://{address}/-/ready", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        with PrometheusApi(f"http://{address}") as api:
            yield api


def found(prometheus: PrometheusApi, expr: str, needs: Needs = Needs.TRAFFIC) -> Finding:
    """The finding of the check for a board with only this query."""
    about = About("panel", "words", "none", ((None, GOOD),), "alerts", needs)
    variables = (
        Variable("release", "", "", "label_values(kanaria_release_info, release)", is_number=True),
        Variable("canary", "", "", 'label_values(kanaria_release_info{release="$release"}, canary)'),
    )
    board = Board("uid", "board", "words", "1h", (Row("row", (graph(about, Query(expr)),)),), variables)
    (finding,) = check([board], prometheus, SPAN)
    return finding


def test_a_panel_with_numbers_is_drawn(prometheus: PrometheusApi) -> None:
    """Grafana's own variables are filled in."""
    finding = found(prometheus, "sum(rate(envoy_kanaria_predict_total[$__rate_interval]))")
    assert finding.state is State.DRAWN
    assert [round(value) for value in finding.series["{}"][-3:]] == [10, 10, 10]


def test_a_variable_may_depend_on_another(prometheus: PrometheusApi) -> None:
    """The newest release is chosen by number, not alphabetically, and then its canary."""
    finding = found(prometheus, 'kanaria_release_info{release="$release",canary="${canary:raw}"}')
    assert finding.query == 'kanaria_release_info{release="10",canary="m:v10"}'
    assert finding.state is State.DRAWN


@pytest.mark.parametrize(
    ("expr", "state", "detail"),
    [
        ("sum(rate(envoy_kanaria_predicted_total[1m]))", State.UNKNOWN_METRIC, "envoy_kanaria_predicted_total"),
        ("sum(misspelt_total) or vector(0)", State.UNKNOWN_METRIC, "misspelt_total"),
        ('rate(envoy_kanaria_predict_total{version="m:v2"}[1m])', State.EMPTY, "no series"),
        ("0 * envoy_kanaria_predict_total / 0", State.EMPTY, "no series"),
        ("sum(rate(envoy_kanaria_predict_total))", State.REFUSED, "type"),
        ("sum(", State.REFUSED, "parenthesis"),
    ],
    ids=["unknown", "unknown metric with a default", "empty", "NaN", "wrong type", "not PromQL"],
)
def test_a_panel_that_shows_nothing_is_a_fault(prometheus: PrometheusApi, expr: str, state: State, detail: str) -> None:
    """The finding contains the reason and the query as it was sent."""
    finding = found(prometheus, expr)
    assert (finding.state, finding.state.is_fault, detail in finding.detail) == (state, True, True)


def test_a_panel_may_be_empty_before_the_event_that_fills_it(prometheus: PrometheusApi) -> None:
    """No drift report was made in that time, so the panel may be empty even if its metrics do not exist yet."""
    finding = found(prometheus, 'kanaria_drift_rows{kind="data"}', Needs.DRIFT)
    assert (finding.state, finding.state.is_fault) == (State.NOT_YET, False)


def test_without_traffic_nothing_is_checked(prometheus: PrometheusApi) -> None:
    """An empty panel would then prove nothing."""
    with pytest.raises(NothingToCheck, match="no traffic in the last 300 s"):
        list(check([], prometheus, Span(END_S + 3600, END_S + 3900)))


def test_an_unreachable_prometheus_is_named() -> None:
    """The error has the address."""
    url = f"http://127.0.0.1:{free_port()}"
    with PrometheusApi(url) as api, pytest.raises(PrometheusUnreachable, match=url):
        list(check([], api, SPAN))
