"""The targets that Prometheus is configured to scrape."""

import json
from pathlib import Path

import pytest

from kanaria.settings import Settings
from kanaria.stack.scrape_targets import write_targets, write_versions
from rollout.fleet import Backend

ASKING = Backend("m:v2", "127.0.0.1", 2, secret="a secret", metrics_path="/v1/metrics")
SILENT = Backend("m:v1", "127.0.0.1", 1)
WITHOUT_COUNTS = Backend("chat:v1", "10.0.0.5", 8000, has_metrics=False)


@pytest.mark.parametrize(
    ("knows_secret", "closed", "open_"),
    [(True, ["127.0.0.1:2"], ["127.0.0.1:1"]), (False, ["127.0.0.1:1", "127.0.0.1:2"], [])],
    ids=["only versions that require the secret", "one list for an earlier Prometheus"],
)
def test_each_version_is_in_the_list_that_prometheus_reads(
    tmp_path: Path, *, knows_secret: bool, closed: list[str], open_: list[str]
) -> None:
    """All have one job, by which rules and boards find them. Neither list contains the secret."""
    settings = Settings(home=tmp_path)
    write_targets(settings, gateway="127.0.0.1:9", observer=None)
    write_versions(settings, (SILENT, ASKING, WITHOUT_COUNTS), knows_secret=knows_secret)
    texts = [(settings.targets / f"{name}.json").read_text() for name in ("service", "service-open")]
    lists = [json.loads(text) for text in texts]
    assert [[address for group in groups for address in group["targets"]] for groups in lists] == [closed, open_]
    assert {group["labels"]["job"] for groups in lists for group in groups} == {"service"}
    at_another_path = {
        address: group["labels"].get("__metrics_path__")
        for groups in lists
        for group in groups
        for address in group["targets"]
    }
    assert at_another_path == {"127.0.0.1:1": None, "127.0.0.1:2": "/v1/metrics"}
    assert "a secret" not in "".join(texts)
