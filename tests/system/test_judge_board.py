"""The dashboard of the judge: a real Prometheus reads a real judge, and every panel shows data."""

import json
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from kanaria.stack.ports import free_port
from monitoring.errors import NothingToCheck
from monitoring.grafana.check import Finding, State, check
from monitoring.grafana.dashboards.judge import VERDICTS, judge
from monitoring.prometheus.api import PrometheusApi, Span
from rollout.judge import Verdict
from tests.support.asking import HTTP
from tests.support.children import started
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("judge", "monitoring")

TOKEN = "twenty-letters-or-more"  # noqa: S105 - of a test
ASKED = {"namespace": "shop", "rollout": "digits", "canary": "7fd54", "stable": "6c9f8", "profile": "bentoml"}


def answers(url: str) -> bool:
    try:
        return HTTP.get(url).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[list[Finding]]:
    """The findings of the check after questions with the right and with a wrong token."""
    folder, prometheus_port, port = tmp_path_factory.mktemp("judge"), free_port(), free_port()
    (folder / "token").write_text(TOKEN)
    scrape = {"job_name": "judge", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    (folder / "prometheus.yml").write_text(
        json.dumps({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "scrape_configs": [scrape]})
    )
    at_prometheus = f"http://127.0.0.1:{prometheus_port}"
    prometheus = [
        require_program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{prometheus_port}",
    ]
    serve = [sys.executable, "-m", "kanaria", "judge", "serve", f"--prometheus={at_prometheus}", f"--port={port}"]
    serve += [f"--token-file={folder / 'token'}", f"--ledger={folder / 'judge.db'}"]
    began_s = time.time()
    with (
        (folder / "log").open("w") as log,
        started(prometheus, stdout=log, stderr=log),
        started(serve, stdout=log, stderr=log),
        PrometheusApi(at_prometheus) as api,
    ):
        eventually(lambda: answers(f"{at_prometheus}/-/ready"))
        eventually(lambda: answers(f"http://127.0.0.1:{port}/readyz"))

        def findings() -> list[Finding]:
            for token in (TOKEN, "another"):
                headers = {"authorization": f"Bearer {token}"}
                url = f"http://127.0.0.1:{port}/v1/judge"
                HTTP.post(url, json=ASKED, headers=headers)
            return list(check([judge()], api, Span(began_s, time.time())))

        last: list[Finding] = []

        def all_drawn() -> bool:
            try:
                last[:] = findings()
            except NothingToCheck:  # before the first scrape
                return False
            return {finding.state for finding in last} == {State.DRAWN}

        eventually(all_drawn, within_s=120)
        yield last


def test_every_panel_is_drawn(found: list[Finding]) -> None:
    """No query is refused, reads a metric that does not exist, or finds nothing."""
    assert [f"{one.panel}: {one.detail}" for one in found if one.state is not State.DRAWN] == []


def test_verdicts_and_refusals_are_shown(found: list[Finding]) -> None:
    """The canary shows the number of its last verdict, and answers and refusals are counted."""
    series = {one.panel: one.series for one in found}
    (values,) = series["Last verdicts"].values()
    assert VERDICTS[int(values[-1]) - 1] == Verdict.NO_DATA.value
    refused = {name: values[-1] for name, values in series["Refused by status"].items()}
    assert [name for name, value in refused.items() if value > 0] == ["{'reason': 'question', 'status': '401'}"]


def test_the_dashboard_knows_all_verdicts() -> None:
    """An unknown verdict would be shown as a number."""
    assert {verdict.value for verdict in Verdict} == set(VERDICTS)
