"""Kanaria's own metrics: every mention names an exported metric with labels that it has."""

import json
import re
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract import metrics
from contract.metrics import Metric
from monitoring.drift.metrics import DriftCollector
from rollout.control.metrics import ControllerMetrics
from tests.support.paths import ROOT

DECLARED = tuple(value for value in vars(metrics).values() if isinstance(value, Metric))
OF_GATEWAY = "kanaria_predict"  # the gateway's metrics start with this, after `envoy_`; a runbook searches for it
FROM_SCRAPES = {"job", "instance", "pod"}  # `pod` in a cluster
FORMER = {metrics.REQUESTS.name: {"endpoint"}}  # labels of Bentos that an older Kanaria built; alerts still read them


def series() -> dict[str, frozenset[str]]:
    """The labels of every exported series, by its name."""
    found = {}
    for metric in DECLARED:
        found |= {
            name: frozenset(metric.labels) | ({"le"} if name.endswith("_bucket") else set()) for name in metric.series
        }
    return found


def texts() -> Iterator[tuple[str, str]]:
    """Every text that names metrics: documents, rules and the queries of the dashboards."""
    for path in sorted([*ROOT.glob("monitoring/**/*.y*ml"), *ROOT.glob("docs/**/*.md")]):
        yield str(path.relative_to(ROOT)), path.read_text()
    for path in sorted(ROOT.glob("monitoring/generated/dashboards/*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", target["expr"]


@pytest.mark.parametrize(("place", "text"), [pytest.param(*found, id=found[0]) for found in texts()])
def test_every_mentioned_metric_is_exported(place: str, text: str) -> None:
    """It has every label that is mentioned with it."""
    known = series()
    for name, matchers in re.findall(r"(?<![\w.])(kanaria_\w+)(?:\{([^}]*)\})?", text):
        assert name in known or name == OF_GATEWAY, f"{place} names {name}"
        labels = {part.partition("=")[0].strip("!~ ") for part in matchers.split(",") if part}
        assert labels <= known.get(name, labels) | FROM_SCRAPES | FORMER.get(name, set()), (
            f"{place} asks {name} for {labels}"
        )


def test_no_two_metrics_have_the_same_name() -> None:
    """No metric is declared twice."""
    assert len({metric.name for metric in DECLARED}) == len(DECLARED)


def test_the_controller_exports_every_metric_declared_for_it() -> None:
    """These are its own metrics, those of the newest release and of the newest drift reports, each with its meaning."""
    controller = ControllerMetrics()
    controller.registry.register(DriftCollector({}, dict))
    page = controller.exposition().decode()
    meanings = {family.name: family.documentation for family in text_string_to_metric_families(page)}
    ours = (
        metrics.LAST_BEAT,
        metrics.FAILED_BEATS,
        metrics.FAILED_IN_A_ROW,
        metrics.UNWRITTEN,
        metrics.FREE_BYTES,
        metrics.GATEWAY_SILENT,
        metrics.SOURCE_UNREACHABLE,
        metrics.ROUTER_FAILURES,
        metrics.VERSION_UP,
    )
    expected = [
        *ours,
        *(metric for metric in DECLARED if metric.name.startswith(("kanaria_release_", "kanaria_drift_"))),
    ]
    for metric in expected:
        name = metric.name if metric.name in meanings else metric.name.removesuffix("_total")
        assert meanings[name] == metric.meaning
