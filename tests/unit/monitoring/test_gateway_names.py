"""Boards, objectives and alerts ask for the gateway's series by the names that its data plane exports."""

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
    """Every name of a series of Envoy's; `envoy_response_code` and the like are labels."""
    return set(re.findall(r"\benvoy_\w+(?=[\s\[{)]|\\?\")", text)) - {"envoy_response_code", "envoy_cluster_name"}


@pytest.mark.parametrize("path", ASKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_series_that_is_asked_for_is_exported(path: Path) -> None:
    """A data plane that renames a series would leave boards empty and alerts silent."""
    assert gateway_series(path.read_text()) <= EXPORTED


def test_the_boards_declare_the_names_of_the_data_plane() -> None:
    """What the boards build their queries from is what the data plane counts."""
    assert (envoy.REQUESTS, f"{envoy.DURATION}_bucket") == (promql.REQUESTS, promql.DURATION)
    assert (envoy.SHADOW_REQUESTS, f"{envoy.SHADOW_DURATION}_bucket") == (promql.COPIES, promql.COPY_DURATION)


def test_the_names_are_found_where_they_are_asked_for() -> None:
    """The search finds every kind of name, so that the comparison cannot pass by finding none."""
    found = set().union(*(gateway_series(path.read_text()) for path in ASKED))
    assert {envoy.REQUESTS, envoy.SHADOW_REQUESTS, f"{envoy.DURATION}_bucket", f"{envoy.DURATION}_count"} <= found
