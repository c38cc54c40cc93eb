"""`make demo` keeps its promises on this machine."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.stack import Kanaria


def test_the_demo_promotes_v2_and_rolls_back_the_silently_wrong_v3(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """It takes under five minutes, fails no client request, and writes a report with its numbers."""
    require_program("envoy")
    kanaria = Kanaria.at(tmp_path, tmp_path / "unused", KANARIA_DRIFT_EVERY_S="")
    kanaria.ok("demo")
    result = json.loads((kanaria.home / "demo.json").read_text())
    assert (result["promoted"], result["rolled_back"]) == ("digits:v2", "digits:v3")
    assert (result["client_failures"], result["client_requests"] > 1000) == (0, True)
    assert result["rollback_signal"].startswith(("class:", "wrong_label"))
    assert "digits:v3 was rolled back" in result["rollback_reason"]
    assert 0 < result["seconds_to_rollback"] < 150
    assert result["canary_requests_until_rollback"] > 0
    assert result["seconds_total"] < 300
    assert "digits:v3 was rolled back" in Path(result["report"]).read_text()
