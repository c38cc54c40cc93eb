"""Dashboards, objectives and alerts use the names under which the gateway exports its series."""

import re
from pathlib import Path

import pytest

from monitoring.grafana.dashboards import promql
from rollout.routers.envoy import metrics as envoy
from tests.support.paths import ROOT

EXPORTED = {
    envoy.REQUESTS,
    envoy.SHADOW_REQUESTS,
    *(f"{name}_{part}" for name in (envoy.DURATION, envoy.SHADOW_DURATION) for part in ("bucket", "count", "sum")),
}
ASKED = sorted(
    [
        *(ROOT / "monitoring").glob("*.yaml"),
        *(ROOT / "monitoring" / "rules").rglob("*.yaml"),
        *(ROOT / "monitoring" / "generated").rglob("*.json"),
    ]
)


def gateway_series(text: str) -> set[str]:
    """All names of Envoy's series; `envoy_response_code` and similar are labels."""
    return set(re.findall(r"\benvoy_\w+(?=[\s\[{)]|\\?\")", text)) - {"envoy_response_code", "envoy_cluster_name"}


@pytest.mark.parametrize("path", ASKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_series_in_use_is_exported(path: Path) -> None:
    """A gateway that renames a series would leave dashboards empty and alerts silent."""
    assert gateway_series(path.read_text()) <= EXPORTED


def test_the_dashboards_declare_the_names_of_the_gateway() -> None:
    """The dashboards build their queries from the series that the gateway counts."""
    assert (envoy.REQUESTS, f"{envoy.DURATION}_bucket") == (promql.REQUESTS, promql.DURATION)
    assert (envoy.SHADOW_REQUESTS, f"{envoy.SHADOW_DURATION}_bucket") == (promql.COPIES, promql.COPY_DURATION)


def test_the_search_finds_every_kind_of_name() -> None:
    """Otherwise the comparison would pass because it found none."""
    found = set().union(*(gateway_series(path.read_text()) for path in ASKED))
    assert {envoy.REQUESTS, envoy.SHADOW_REQUESTS, f"{envoy.DURATION}_bucket", f"{envoy.DURATION}_count"} <= found
