"""The real programs accept and use the monitoring configuration."""

import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from kanaria.stack.ports import free_port
from kanaria.stack.web_config import web_config
from monitoring.errors import RulesError
from monitoring.prometheus.alertmanager import (
    AlertmanagerSettings,
    alertmanager_command,
    alertmanager_config,
    parse_receivers,
)
from monitoring.prometheus.configuration import (
    JOBS,
    RULES,
    PrometheusSettings,
    Target,
    file_sd,
    prometheus_command,
    prometheus_config,
)
from monitoring.prometheus.user import USER
from rollout.errors import SourceUnreachable
from rollout.routers.envoy.metrics import PAGE_FILTER
from rollout.sources.firing import Firing, FiringAlerts
from tests.support.processes import until
from tests.support.running_server import running_server

DEADLINE_S = 120.0

Find = Callable[[str], str]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_promtool_accepts_the_configuration_and_its_rules(tmp_path: Path, require_program: Find) -> None:
    """It has targets, rules and Alertmanager, as for a running stack."""
    for job in JOBS:
        (tmp_path / f"{job}.json").write_text(file_sd([Target("127.0.0.1:9000")]))
    (tmp_path / "s").write_text("a secret")
    config = tmp_path / "prometheus.yml"
    config.write_text(
        prometheus_config(
            PrometheusSettings(
                targets_dir=tmp_path,
                alertmanager="127.0.0.1:9093",
                password_file=tmp_path / "p",
                secret_file=tmp_path / "s",
            )
        )
    )
    checked = run(require_program("promtool"), "check", "config", str(config))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def kanaria(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "kanaria", "rules", *map(str, arguments))


@pytest.mark.exhaustive
def test_each_alert_fires_when_it_should_and_is_silent_otherwise(require_program: Find) -> None:
    """`kanaria rules check` runs monitoring/rules/tests and compares the rules with their sources."""
    require_program("promtool")
    checked = kanaria("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_users_own_slos_become_valid_rules(tmp_path: Path, require_program: Find) -> None:
    """A user's own slo.yaml becomes a folder that Prometheus reads; an invalid one is refused with the reason."""
    require_program("promtool")
    slos = tmp_path / "slo.yaml"
    slos.write_text("speed: {objective: 99.5%, bad_means: were slow, total: 'all{job=\"a\"}', good: quick}")
    out = tmp_path / "rules"
    written = kanaria("generate", "--slo", slos, "--out", out)
    assert written.returncode == 0, written.stderr
    checked = kanaria("check", *sorted(out.glob("*.yaml")))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    slos.write_text("speed: {objective: 90%, bad_means: were slow, total: all, good: quick}")
    refused = kanaria("generate", "--slo", slos, "--out", out)
    assert (refused.returncode, "cannot be reached" in refused.stderr) == (2, True)


def test_rules_for_kubernetes_are_written_without_the_others(tmp_path: Path, require_program: Find) -> None:
    """It is a PrometheusRule: promtool accepts its groups, and its links lead to the judge or to `--runbooks`."""
    file, groups = tmp_path / "kubernetes" / "rules.yaml", tmp_path / "groups.yaml"
    for given, link in (
        ((), "http://kanaria-judge.kanaria.svc:8091/runbooks#"),
        (("--runbooks", "https://w/k"), "https://w/k#"),
    ):
        written = kanaria("generate", "--kubernetes", file, *given)
        assert written.returncode == 0, written.stderr
        rule = yaml.safe_load(file.read_text())
        assert all(each["annotations"]["runbook_url"].startswith(link) for each in rule["spec"]["groups"][0]["rules"])
    assert list(tmp_path.iterdir()) == [file.parent]
    groups.write_text(yaml.safe_dump(rule["spec"]))
    checked = run(require_program("promtool"), "check", "rules", str(groups))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_query_that_promtool_refuses_is_shown_with_exit_code_1(tmp_path: Path, require_program: Find) -> None:
    """The error has promtool's text."""
    require_program("promtool")
    (tmp_path / "wrong.yaml").write_text("groups: [{name: a, rules: [{record: b, expr: 'sum(('}]}]")
    checked = kanaria("check", tmp_path / "wrong.yaml")
    assert (checked.returncode, "parse error" in checked.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "no-such.yaml"), "no file no-such.yaml"),
        (("generate", "--slo", "no-such.yaml"), "no file no-such.yaml"),
        (("generate", "--runbooks", "docs/runbooks/alerts.md"), "give a full address"),
        (("generate", "--runbooks", ""), "give a full address"),
    ],
)
def test_an_unusable_argument_is_named_with_exit_code_2(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    """Nothing is written."""
    out = ("--out", tmp_path) if arguments[0] == "generate" else ()
    refused = kanaria(*arguments, *out)
    assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("scrape_s", "evaluate"), [(1.0, "5000ms"), (15.0, "15000ms")])
def test_rules_are_evaluated_less_often_than_metrics_are_scraped(
    scrape_s: float, evaluate: str, tmp_path: Path
) -> None:
    """Every second they would use more of an idle machine than all scrapes; and never without new samples."""
    config = yaml.safe_load(prometheus_config(PrometheusSettings(targets_dir=tmp_path, scrape_interval_s=scrape_s)))
    assert config["global"]["evaluation_interval"] == evaluate


def test_prometheus_keeps_every_gateway_metric_that_is_judged(tmp_path: Path) -> None:
    """Monitoring and judging do not import each other, so only this test keeps the two filters equal."""
    config = yaml.safe_load(prometheus_config(PrometheusSettings(targets_dir=tmp_path)))
    filters = {job["job_name"]: job.get("params") for job in config["scrape_configs"]}
    assert filters.pop("gateway") == {"filter": [PAGE_FILTER]}
    assert set(filters.values()) == {None}


def test_amtool_accepts_the_configuration(tmp_path: Path, require_program: Find) -> None:
    """This holds for the configuration of a running stack and the committed one with its example receivers."""
    amtool = require_program("amtool")
    own = tmp_path / "alertmanager.yml"
    settings = AlertmanagerSettings(webhook_url="http://127.0.0.1:1/api/alerts", token_file=tmp_path / "token")
    own.write_text(alertmanager_config(settings))
    for config in (own, RULES[0].with_name("alertmanager.yml")):
        checked = run(amtool, "check-config", str(config))
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (("severity=page", "action=rollback"), "controller,page"),
        (("severity=page",), "page"),
        (("severity=ticket",), "ticket"),
        (("severity=ticket", "action=rollback"), "controller,ticket"),
    ],
)
def test_alerts_go_to_the_right_receivers(labels: tuple[str, ...], receivers: str, require_program: Find) -> None:
    """An alert that triggers a rollback goes to the controller and to people, as amtool routes it."""
    amtool, config = require_program("amtool"), RULES[0].with_name("alertmanager.yml")
    routed = run(
        amtool, "config", "routes", "test", f"--config.file={config}", f"--verify.receivers={receivers}", *labels
    )
    assert routed.returncode == 0, routed.stdout + routed.stderr


def test_no_alert_that_triggers_a_rollback_is_inhibited() -> None:
    """It may be the only way back; only a second notification to people may be suppressed."""
    config = yaml.safe_load(RULES[0].with_name("alertmanager.yml").read_text())
    assert config["inhibit_rules"]
    assert all('action!="rollback"' in rule["target_matchers"] for rule in config["inhibit_rules"])


@pytest.mark.parametrize(
    "text", ["{", "- {name: page}", "page: {}", "- {name: page}\n- {name: ticket}\n- {name: other}"]
)
def test_unknown_receivers_are_refused(text: str) -> None:
    """Alertmanager does not start with a route to a receiver that does not exist."""
    with pytest.raises(RulesError):
        parse_receivers(text)


@pytest.fixture
def webhook() -> Iterator[tuple[str, "queue.Queue[tuple[str | None, bytes]]"]]:
    """The URL of a server in place of the controller, and what it receives: Authorization headers and bodies."""
    received: queue.Queue[tuple[str | None, bytes]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put((self.headers["authorization"], self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with running_server(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}/api/alerts", received


@pytest.fixture
def alertmanager(
    tmp_path: Path, webhook: tuple[str, "queue.Queue[tuple[str | None, bytes]]"], require_program: Find
) -> Iterator[str]:
    """The address of an Alertmanager that notifies `webhook`."""
    (tmp_path / "token").write_text("secret-token")
    config = tmp_path / "alertmanager.yml"
    config.write_text(alertmanager_config(AlertmanagerSettings(webhook_url=webhook[0], token_file=tmp_path / "token")))
    address = f"127.0.0.1:{free_port()}"
    program = require_program("prometheus-alertmanager")
    web = tmp_path / "web.yml"
    web.write_text(web_config("password"))
    command = alertmanager_command(program, config=config, data_dir=tmp_path / "data", listen=address, web_config=web)
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        yield f"http://{address}"
        process.terminate()


def test_an_alert_reaches_the_controller_with_its_token(
    alertmanager: str, webhook: tuple[str, "queue.Queue[tuple[str | None, bytes]]"]
) -> None:
    """The labels name the version and the action for the controller. Posting an alert needs the password."""
    alert = {"labels": {"alertname": "KanariaCanaryDown", "version": "digits:v2", "action": "rollback"}}
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        try:
            alerts = f"{alertmanager}/api/v2/alerts"
            assert httpx.post(alerts, json=[alert], trust_env=False).status_code == httpx.codes.UNAUTHORIZED
            httpx.post(alerts, json=[alert], auth=(USER, "password"), trust_env=False).raise_for_status()
            break
        except httpx.HTTPError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.1)
    authorization, body = webhook[1].get(timeout=DEADLINE_S)
    assert authorization == "Bearer secret-token"
    assert [sent["labels"] for sent in httpx.Response(200, content=body).json()["alerts"]] == [alert["labels"]]


def test_firing_alerts_are_read_from_prometheus(tmp_path: Path, require_program: Find) -> None:
    """They have all labels and their start time; an alert that is still in its `for` period does not fire."""
    rule = {"alert": "Fires", "expr": "vector(1)", "labels": {"action": "rollback", "version": "digits:v2"}}
    waits = {"alert": "Waits", "expr": "vector(1)", "for": "1h"}
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "test", "interval": "1s", "rules": [rule, waits]}]}))
    config = tmp_path / "prometheus.yml"
    config.write_text(prometheus_config(PrometheusSettings(targets_dir=tmp_path, rule_files=(rules,))))
    address = f"127.0.0.1:{free_port()}"
    command = prometheus_command(
        require_program("prometheus"), config=config, data_dir=tmp_path / "data", listen=address
    )
    alerts = FiringAlerts(f"http://{address}")
    with pytest.raises(SourceUnreachable):
        alerts.now()
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            fires = until(lambda: _now(alerts), limit_s=DEADLINE_S)
        finally:
            process.terminate()
    (one,) = fires
    assert one.labels == {"alertname": "Fires", "action": "rollback", "version": "digits:v2"}
    assert abs(one.since_s - time.time()) < 3600


def _now(alerts: FiringAlerts) -> Sequence[Firing]:
    """Empty while Prometheus starts."""
    with suppress(SourceUnreachable):
        return alerts.now()
    return ()
