"""An alert of the real Prometheus rolls a promoted version back, through Alertmanager, the controller and Envoy."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import yaml

from tests.support.processes import until
from tests.support.stack import Kanaria

# The first objective of monitoring/slo.yaml in seconds instead of minutes, so no test waits five minutes.
OBJECTIVES = {
    "availability": {
        "objective": "99.9%",
        "bad_means": "of requests failed",
        "total": 'envoy_kanaria_predict_total{code=~"[25].."}',
        "bad": 'envoy_kanaria_predict_total{code=~"5.."}',
        "version_label": "routed",
        "min_bad_events": 5,
        "release": {"long": "15s", "short": "5s", "compared_over": "1m", "burn_rate": 14.4},
    }
}
# Only the alert can act: the judge only holds, and the guard never stops a release.
LENIENT = {"signals": {"errors": {"on_fail": "hold"}}, "guards": {"error_ratio": "99%"}, "on_deadline": "hold"}


def test_a_forged_alert_causes_no_rollback(
    kanaria: Kanaria, samples: Path, require_program: Callable[[str], str]
) -> None:
    """Alertmanager and Prometheus need a password. Even with it, only alerts that Prometheus itself fires count."""
    for program in ("prometheus", "prometheus-alertmanager"):
        require_program(program)
    kanaria.environment |= {"KANARIA_METRICS": "prometheus"}
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples):
        kanaria.ok(
            "release", "digits:v2", "--spec", kanaria.plan(steps=[10, 100], soak="10m", step_deadline="20m", **LENIENT)
        )
        kanaria.until(lambda status: status["canary"] and status["canary"]["weight_percent"] == 10)
        labels = {"alertname": "KanariaCanaryDown", "version": "digits:v2", "role": "canary"}
        forged = {"labels": labels | {"severity": "page", "action": "rollback"}}
        configuration = yaml.safe_load((kanaria.home / "prometheus" / "prometheus.yml").read_text())
        ((address,),) = (one["targets"] for one in configuration["alerting"]["alertmanagers"][0]["static_configs"])
        url, silence = f"http://{address}/api/v2", {"matchers": [], "createdBy": "eve", "comment": ""}
        for path, body in (("alerts", [forged]), ("silences", silence)):
            assert httpx.post(f"{url}/{path}", json=body, trust_env=False, timeout=60).status_code == 401
        prometheus = (kanaria.home / "prometheus" / "url").read_text().strip()
        for path in ("", "graph", "metrics", "api/v1/query?query=up", "api/v1/alerts", "federate?match[]=up"):
            assert httpx.get(f"{prometheus}/{path}", trust_env=False, timeout=60).status_code == 401, path
        owner = ("kanaria", (kanaria.home / "alertmanager-password").read_text())
        httpx.post(f"{url}/alerts", json=[forged], auth=owner, trust_env=False, timeout=60).raise_for_status()
        log = kanaria.home / "logs" / "controller.log"
        until(lambda: "Prometheus has no such alert firing" in log.read_text())
        status = kanaria.status()
    assert (status["release"]["outcome"], status["canary"]["weight_percent"]) == (None, 10)


def test_a_promoted_version_that_breaks_is_rolled_back_by_its_alert(
    kanaria: Kanaria, samples: Path, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """All traffic returns to the previous version; only requests to the broken version failed."""
    for program in ("prometheus", "prometheus-alertmanager"):
        require_program(program)
    slos, rules = tmp_path / "slo.yaml", tmp_path / "rules"
    slos.write_text(yaml.safe_dump(OBJECTIVES))
    kanaria.ok("rules", "generate", "--slo", str(slos), "--out", str(rules))
    kanaria.environment |= {"KANARIA_METRICS": "prometheus", "KANARIA_RULES": str(rules)}
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples) as users:
        kanaria.ok("release", "digits:failing", "--spec", kanaria.plan(steps=[10, 100], watch="10m", **LENIENT))
        kanaria.until(lambda status: status["canary"] and status["canary"]["weight_percent"] == 10)
        kanaria.ok("promote")  # by a person, before the version breaks
        kanaria.until(lambda status: status["stable"]["tag"] == "digits:v1")
        status = kanaria.until(lambda status: status["release"]["phase"] == "ended")
        summary = users.stop()
    assert status["stable"]["weight_percent"] == 100
    (row,) = json.loads(kanaria.ok("history", "--json"))
    assert (row["outcome"], row["signal"]) == ("rolled_back", "alert")
    assert row["reason"].startswith("KanariaAvailabilityBurnedByVersion: digits:failing: ")
    assert summary.failures > 0
    assert {(failure.version, failure.status) for failure in summary.failure_list} == {("digits:failing", 500)}
