"""Objectives become rules: burn rates are the workbook's, impossible objectives are refused, alerts have runbooks."""

import re
from typing import Any

import pytest
import yaml

from monitoring.errors import RulesError
from monitoring.prometheus.alertmanager import example_config
from monitoring.slo.objectives import Slo, parse_slos, seconds
from monitoring.slo.rules import alert_rules, slo_rules
from rollout.ui.runbooks import RUNBOOKS as SERVED
from tests.support.paths import ROOT

MONITORING = ROOT / "monitoring"
CASES = [
    case
    for path in sorted((MONITORING / "rules" / "tests").glob("*.yaml"))
    for test in yaml.safe_load(path.read_text())["tests"]
    for case in test.get("alert_rule_test", [])
]
GENERATED = {
    "slo.yaml": slo_rules((MONITORING / "slo.yaml").read_text()),
    "alerts.yaml": alert_rules((MONITORING / "alerts.yaml").read_text()),
}


def rules_in(text: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


RECORDINGS = {rule["record"]: rule["expr"] for rule in rules_in(GENERATED["slo.yaml"]) if "record" in rule}
ALERTS = [rule for text in GENERATED.values() for rule in rules_in(text) if "alert" in rule]
SERVICE = Slo.model_validate({"objective": "99.9%", "bad_means": "of requests failed", "total": "all", "bad": "failed"})


@pytest.mark.parametrize(("name", "text"), [*GENERATED.items(), ("alertmanager.yml", example_config())])
def test_the_committed_files_match_their_sources(name: str, text: str) -> None:
    """If this fails, run `kanaria rules generate`."""
    assert (MONITORING / "rules" / name).read_text() == text


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
class TestEachAlert:
    """The promises to a person who is paged."""

    def test_fires_in_one_tested_case_and_is_silent_in_another(self, rule: dict[str, Any]) -> None:
        """`kanaria rules check` runs the cases in promtool."""
        fires = {bool(case["exp_alerts"]) for case in CASES if case["alertname"] == rule["alert"]}
        assert fires == {True, False}

    def test_says_its_value_and_how_urgent_it_is(self, rule: dict[str, Any]) -> None:
        """The value is in the summary, because a phone shows only that."""
        assert "$value" in rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")

    def test_leads_to_a_runbook_that_says_what_to_type(self, rule: dict[str, Any]) -> None:
        """The link leads to a heading of the page that the controller serves, with commands below it."""
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "http://127.0.0.1:8090/runbooks"
        _, *sections = re.split(r"^## ", SERVED.read_text(), flags=re.MULTILINE)
        (section,) = [section for section in sections if section.splitlines()[0].lower() == anchor]
        assert f"**{rule['labels']['severity']}" in section
        assert "\n```\n" in section


def test_the_windows_and_burn_rates_are_those_of_the_workbook() -> None:
    """They spend 2, 5, 10 and 10 % of a 30-day budget; each short window is a twelfth of its long one."""
    windows = (*SERVICE.fast, *SERVICE.slow)
    spent = [round(window.burn_rate * seconds(window.long) / seconds("30d"), 4) for window in windows]
    assert spent == [0.02, 0.05, 0.1, 0.1]
    assert [seconds(window.long) // seconds(window.short) for window in windows] == [12] * 4


def test_only_an_alert_that_names_a_version_may_roll_back() -> None:
    """Otherwise it would roll back whatever version is on trial."""
    acting = [rule for rule in ALERTS if rule["labels"].get("action") == "rollback"]
    assert acting
    assert all("$labels.version" in rule["annotations"]["summary"] for rule in acting)


def test_every_ratio_divides_events_by_events() -> None:
    """It is never a mean of ratios. A long window starts with the ratio of a short one."""
    ratios = {record: expr for record, expr in RECORDINGS.items() if ":sli_error:" in record}
    assert ratios
    for record, expr in ratios.items():
        window = record.partition("ratio_rate")[2]
        assert re.fullmatch(
            rf"\S+:bad_events:increase{window}{{\S+}} / \(\S+:events:increase{window}{{\S+}} > 0\)"
            r"( or \S+:sli_error:ratio_rate5m{\S+})?",
            expr,
        )


def objective_file(**keys: object) -> str:
    return yaml.safe_dump({"speed": {"objective": "99%", "bad_means": "were slow", "total": "a", "bad": "b"} | keys})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (objective_file(objective="90%"), "cannot be reached"),  # 14.4 times a budget of 10 % is more than all events
        (objective_file(objective="100%"), "below 1"),
        (objective_file(objective=0.99), "such as 99.9%"),
        (objective_file(good="c"), "`bad` or `good`"),
        (objective_file(bad=None), "`bad` or `good`"),
        (objective_file(total="rate(a[5m])"), "total"),
        (objective_file(fast=[{"long": "5m", "short": "1h", "burn_rate": 2}]), "must be shorter"),
        (
            objective_file(release={"long": "5m", "short": "1m", "compared_over": "5m", "burn_rate": 2}),
            "must be longer",
        ),
        (objective_file(objektive="99%"), "objektive"),
        ("Speed: {}", "lower-case letters"),
        ("- a", "must map names"),
        ("{", "not YAML"),
    ],
)
def test_an_impossible_or_invalid_objective_is_refused_with_the_reason(text: str, words: str) -> None:
    """Then no rule is written."""
    with pytest.raises(RulesError, match=re.escape(words)):
        parse_slos(text)


def test_the_link_to_the_runbooks_can_be_any_address() -> None:
    """Alerts may be read in a chat, where only a full address helps."""
    rules = rules_in(alert_rules((MONITORING / "alerts.yaml").read_text(), runbooks="https://wiki/kanaria"))
    assert rules[0]["annotations"]["runbook_url"] == "https://wiki/kanaria#kanariacanarydown"
