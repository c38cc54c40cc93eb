"""A stack whose gateway and controller use TLS: Kanaria's own parts keep working, and all clients use encryption."""

import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml
from cryptography import x509

from contract.login import Login
from monitoring.prometheus.api import PrometheusApi
from tests.support.certificates import Pair, pair
from tests.support.processes import until
from tests.support.stack import Kanaria


def with_tls(kanaria: Kanaria, made: Pair) -> None:
    for service in ("", "CONTROLLER_"):
        kanaria.environment |= {
            f"KANARIA_{service}TLS_CERTIFICATE": str(made.certificate),
            f"KANARIA_{service}TLS_KEY": str(made.key),
        }


def answers(url: str, trust: ssl.SSLContext) -> bool:
    try:
        return httpx.get(url, verify=trust, trust_env=False, timeout=60).is_success
    except httpx.TransportError:
        return False


def scraped(kanaria: Kanaria, job: str) -> bool:
    url = (kanaria.home / "prometheus" / "url").read_text().strip()
    with PrometheusApi(url, login=Login(kanaria.home / "prometheus-login")) as api:
        now = max(value for values in api.query("time()", time.time()).values() for value in values)
        return any(1.0 in values for values in api.query(f'up{{job="{job}"}}', now).values())


def expires(kanaria: Kanaria, service: str, trust: ssl.SSLContext) -> float | None:
    """The expiry time of its certificate in the controller's metrics, Unix seconds; None if there is none."""
    url = kanaria.controller.replace("http:", "https:")
    page = httpx.get(f"{url}/metrics", verify=trust, trust_env=False, timeout=60).text
    found = re.search(
        rf'^kanaria_certificate_expires_timestamp_seconds{{service="{service}"}} (\S+)$', page, re.MULTILINE
    )
    return float(found[1]) if found else None


def until_when(made: Pair) -> float:
    return x509.load_pem_x509_certificate(made.certificate.read_bytes()).not_valid_after_utc.timestamp()


def alert(kanaria: Kanaria, name: str) -> None:
    """Let Alertmanager send an alert, and wait until the controller has it."""
    configuration = yaml.safe_load((kanaria.home / "prometheus" / "prometheus.yml").read_text())
    ((address,),) = (one["targets"] for one in configuration["alerting"]["alertmanagers"][0]["static_configs"])
    owner = ("kanaria", (kanaria.home / "alertmanager-password").read_text())
    log = kanaria.home / "logs" / "controller.log"
    before = log.read_text().count('"event": "alerts"')
    alerts = [{"labels": {"alertname": name, "severity": "page", "action": "rollback"}}]
    httpx.post(
        f"http://{address}/api/v2/alerts", json=alerts, auth=owner, trust_env=False, timeout=60
    ).raise_for_status()
    until(lambda: log.read_text().count('"event": "alerts"') > before)


def test_a_stack_with_certificates_is_only_used_over_tls(
    kanaria: Kanaria, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Clients, commands and Prometheus use TLS; a renewed certificate is used without a restart, and commands go on."""
    for program in ("prometheus", "prometheus-alertmanager"):
        require_program(program)
    made = pair(tmp_path / "made")
    with_tls(kanaria, made)
    kanaria.environment |= {"KANARIA_METRICS": "prometheus"}
    said = kanaria.ok("up", "digits:v1")
    gateway, controller = (url.replace("http:", "https:") for url in (kanaria.gateway, kanaria.controller))
    assert (gateway in said, controller in said) == (True, True)
    assert answers(f"{gateway}/readyz", made.trust())
    assert answers(f"{controller}/api/status", made.trust())
    for url in (kanaria.gateway, kanaria.controller):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/livez", trust_env=False)
    del kanaria.environment["KANARIA_CONTROLLER_TLS_CERTIFICATE"]  # the running stack has recorded it
    assert kanaria.status()["stable"]["tag"] == "digits:v1"
    assert "no release" in kanaria("pause").stderr
    until(lambda: scraped(kanaria, "controller"))
    alert(kanaria, "BeforeTheRenewal")
    for service in ("gateway", "controller"):
        until(lambda service=service: expires(kanaria, service, made.trust()) == until_when(made))  # type: ignore[misc]
    pids = [kanaria.pid(name) for name in ("gateway", "controller")]
    renewed = pair(tmp_path / "renewed", days=(-1, 60))
    made.replace_by(renewed)
    for url in (f"{gateway}/readyz", f"{controller}/livez"):
        until(lambda url=url: answers(url, renewed.trust()))  # type: ignore[misc]
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, verify=made.trust(), trust_env=False, timeout=60)
    for service in ("gateway", "controller"):
        until(lambda service=service: expires(kanaria, service, renewed.trust()) == until_when(renewed))  # type: ignore[misc]
    until(lambda: kanaria.status()["gateway"] == "ready")
    assert pids == [kanaria.pid(name) for name in ("gateway", "controller")]
    until(lambda: scraped(kanaria, "controller"))
    alert(kanaria, "AfterTheRenewal")


def test_a_stack_with_an_invalid_certificate_does_not_start(kanaria: Kanaria, tmp_path: Path) -> None:
    """Nothing is started, and the error names the file."""
    made = pair(tmp_path / "made", days=(-30, -1))
    with_tls(kanaria, made)
    done = kanaria("up", "digits:v1")
    assert (done.returncode, str(made.certificate) in done.stderr, "not valid now" in done.stderr) == (2, True, True)
    assert "nothing is running" in kanaria("down").stdout


def test_a_controller_that_is_reachable_without_tls_is_reported(kanaria: Kanaria) -> None:
    """`kanaria up` goes on: a proxy may encrypt."""
    kanaria.environment |= {"KANARIA_CONTROLLER_HOST": "0.0.0.0"}  # noqa: S104 - what is tested
    assert "the controller listens on 0.0.0.0 without TLS" in kanaria.ok("up", "digits:v1")
