"""The metrics of a release that the controller exposes, for dashboards and alerts."""

from collections.abc import ItemsView, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.metrics import ControllerMetrics
from rollout.control.snapshot import Snapshot
from rollout.fleet import Health
from rollout.ledger.state import Deployment, Release
from rollout.routers.router import ObservedSplit
from rollout.spec import RolloutSpec
from tests.support.releases import LIVE, digits_world


def shown(controller: Controller) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(controller._metrics.exposition().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def labels_of(controller: Controller, name: str) -> list[dict[str, str]]:
    return [dict(labels) for (series, labels), value in shown(controller).items() if series == name and value == 1]


def test_the_evidence_that_decided_is_still_shown_after_the_rollback(tmp_path: Path) -> None:
    """A failed canary is shown over its threshold, with the signal that caused it and the outcome."""
    world, controller = digits_world(tmp_path / "ledger.db", error_ratio=0.05)
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    assert world.live_until_ended(controller) == "rolled_back"
    now, errors = shown(controller), frozenset({"version": "digits:v2", "signal": "errors"}.items())
    of_canary = frozenset({"version": "digits:v2"}.items())
    assert now["kanaria_release_evidence_log", errors] >= now["kanaria_release_evidence_threshold", errors]
    assert (
        now["kanaria_release_combined_evidence_log", of_canary]
        >= now["kanaria_release_combined_evidence_threshold", of_canary]
    )
    assert labels_of(controller, "kanaria_release_verdict") == [{"version": "digits:v2", "verdict": "fail"}]
    assert labels_of(controller, "kanaria_release_outcome") == [{"outcome": "rolled_back"}]
    assert labels_of(controller, "kanaria_release_info") == [
        {"release": "1", "canary": "digits:v2", "stable": "digits:v1"}
    ]
    controller.close()


@pytest.mark.parametrize(
    ("health", "shown"),
    [
        (Health.READY, {("m:v1", "stable"): 1, ("m:v2", "canary"): 1}),
        (Health.UNREADY, {("m:v1", "stable"): 0, ("m:v2", "canary"): 0}),
        (Health.DEAD, {("m:v1", "stable"): 0, ("m:v2", "canary"): 0}),
        (Health.STARTING, {("m:v1", "stable"): 0}),
    ],
)
def test_a_canary_that_is_loading_is_not_shown_as_down(health: Health, shown: dict[tuple[str, str], int]) -> None:
    """After a reboot it loads again, and an alert would roll it back. For stable, a person must know."""
    metrics = ControllerMetrics()
    release = Release(number=1, canary="m:v2", stable="m:v1", spec=RolloutSpec(), requested_s=0.0, by="ann")
    deployment = Deployment("m:v1", release)
    states = {"m:v1": health, "m:v2": health}
    metrics.publish(Snapshot(deployment, None, None, states, "Hold: held", 1.0))
    found = {
        (sample.labels["version"], sample.labels["role"]): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
        if sample.name == "kanaria_version_up"
    }
    assert found == shown


class ScrapedMeanwhile(dict[str, Health]):
    """States of versions that scrape the metrics page whenever they are read, so while they are published."""

    def __init__(self, metrics: ControllerMetrics) -> None:
        super().__init__({"m:v1": Health.READY})
        self._metrics, self.pages = metrics, list[str]()

    def __iter__(self) -> Iterator[str]:
        self.pages.append(self._metrics.exposition().decode())
        return super().__iter__()

    def items(self) -> ItemsView[str, Health]:
        self.pages.append(self._metrics.exposition().decode())
        return super().items()


def test_a_scrape_during_publication_sees_the_unchanged_values() -> None:
    """A scrape during a beat saw no version up and no weight."""
    metrics = ControllerMetrics()
    split = ObservedSplit("m:v1", None, 0.0, False)
    snapshot = Snapshot(Deployment("m:v1", None), split, None, {"m:v1": Health.READY}, "Hold: held", 1.0)
    metrics.publish(snapshot)
    states = ScrapedMeanwhile(metrics)
    metrics.publish(replace(snapshot, health=states))
    assert states.pages
    for page in states.pages:
        assert 'kanaria_version_up{role="stable",version="m:v1"} 1.0' in page
        assert 'kanaria_release_weight_percent{version="m:v1"} 100.0' in page


def test_the_next_release_begins_without_evidence(tmp_path: Path) -> None:
    """The evidence of the previous release disappears when the next one is first judged."""
    world, controller = digits_world(tmp_path / "ledger.db", error_ratio=0.05)
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.live_until_ended(controller)
    world.edit("digits:v2", error_ratio=0.001)
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann", retry=True))
    world.live(controller, 10)
    assert labels_of(controller, "kanaria_release_verdict") != [{"version": "digits:v2", "verdict": "fail"}]
    assert {row["release"] for row in labels_of(controller, "kanaria_release_info")} == {"2"}
    controller.close()
