"""`make demo FAULT=drift` keeps its promises on this machine."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.stack import Kanaria


def test_drifting_traffic_is_reported_and_alerted_without_a_rollback(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Users change to another camera: the report names what changed, the alert fires, and v2 is still promoted."""
    for program in ("envoy", "prometheus", "prometheus-alertmanager"):
        require_program(program)
    kanaria = Kanaria.at(tmp_path, tmp_path / "unused", KANARIA_DRIFT_EVERY_S="")
    kanaria.ok("demo", "--fault", "drift")
    result = json.loads((kanaria.home / "demo.json").read_text())
    assert (result["promoted"], result["rolled_back"]) == ("digits:v2", None)
    assert (result["client_failures"], result["client_requests"] > 1000) == (0, True)
    drift = result["drift"]
    assert (drift["before"], drift["found"], drift["alert_fired"]) == ("no_drift", "drift", True)
    assert 0 < drift["seconds_to_alert"] < 120
    worst = {column["column"]: column for column in drift["worst"]}
    assert any(name.startswith("pixel_") and column["direction"] == "up" for name, column in worst.items())
    assert all(column["score"] > column["threshold"] for column in worst.values())
    assert result["seconds_total"] < 300
    report = Path(result["report"]).read_text()
    assert "What the drift report says" in report
    assert drift["worst"][0]["column"] in report
    page = (kanaria.home / "drift" / "data.html").read_text()
    assert "columns from the data that digits:v1 was tested on (" in page
    assert [release["outcome"] for release in json.loads(kanaria.ok("history", "--json"))] == ["promoted"]
