"""`kanaria dashboards` on the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.grafana import ADMIN, FakeGrafana, running
from tests.support.releases import finished
from tests.support.stack import run

PROMETHEUS = "http://127.0.0.1:9090"


def dashboards(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "kanaria", "dashboards", *arguments], {"KANARIA_HOME": str(home)} | environment)


def test_push_says_what_changed_and_the_second_time_that_nothing_did(tmp_path: Path) -> None:
    """It pushes boards for the given addresses, and an annotation for every decision in the ledger."""
    decisions = len(finished(tmp_path / "ledger.db").decisions)
    with running(FakeGrafana()) as grafana:
        access = {"KANARIA_GRAFANA_URL": grafana.url, "KANARIA_GRAFANA_TOKEN": ADMIN}
        options = ("push", "--prometheus", PROMETHEUS, "--controller", "https://canary.example/")
        first, second = (dashboards(tmp_path, *options, **access) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "unchanged" not in first.stdout
    assert {line.split()[0] for line in second.stdout.splitlines()} == {"unchanged"}
    assert len(grafana.annotations) == decisions
    assert "https://canary.example/releases/1" in grafana.annotations[0]["text"]
    assert grafana.data_sources["kanaria-prometheus"]["url"] == PROMETHEUS
    assert '"https://canary.example"' in json.dumps(grafana.boards["kanaria-overview"])


def test_the_stacks_login_goes_to_the_stacks_prometheus_alone(tmp_path: Path) -> None:
    """Another URL gets what its own file says, or nothing."""
    (tmp_path / "prometheus").mkdir()
    (tmp_path / "prometheus" / "url").write_text(f"{PROMETHEUS}\n")
    (tmp_path / "prometheus-login").write_text("kanaria:own")
    (tmp_path / "theirs").write_text("a-token")
    given = {
        (): "Basic a2FuYXJpYTpvd24=",
        ("--prometheus", f"{PROMETHEUS}/"): "Basic a2FuYXJpYTpvd24=",
        ("--prometheus", "http://elsewhere:9090"): None,
        ("--prometheus", "http://elsewhere:9090", "--prometheus-login", str(tmp_path / "theirs")): "Bearer a-token",
    }
    for options, header in given.items():
        with running(FakeGrafana()) as grafana:
            access = {"KANARIA_GRAFANA_URL": grafana.url, "KANARIA_GRAFANA_TOKEN": ADMIN}
            done = dashboards(tmp_path, "push", *options, **access)
            assert done.returncode == 0, done.stderr
            secrets = grafana.data_sources["kanaria-prometheus"].get("secureJsonData", {})
        assert secrets.get("httpHeaderValue1") == header, options


@pytest.mark.parametrize(
    ("arguments", "environment", "exit_code", "words"),
    [
        (("push",), {}, 2, "KANARIA_GRAFANA_URL is not set"),
        (("push",), {"KANARIA_GRAFANA_URL": "grafana:3000"}, 2, "KANARIA_GRAFANA_URL"),
        (("push",), {"KANARIA_GRAFANA_URL": "http://127.0.0.1:1"}, 2, "--prometheus URL"),
        (("push", "--prometheus", PROMETHEUS), {"KANARIA_GRAFANA_URL": "http://127.0.0.1:1"}, 3, "does not answer"),
        (("check",), {}, 2, "--prometheus URL"),
        (("check", "--prometheus", "http://127.0.0.1:1"), {}, 3, "no Prometheus that answers"),
        (("check", "--last", "soon"), {}, 2, "15m"),
    ],
    ids=["no Grafana", "no URL", "no Prometheus to name", "Grafana away", "no stack", "Prometheus away", "no duration"],
)
def test_what_cannot_be_done_is_explained(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], exit_code: int, words: str
) -> None:
    """The error says what to do, and there is no traceback."""
    done = dashboards(tmp_path, *arguments, **environment)
    assert (done.returncode, words in " ".join(done.stderr.split())) == (exit_code, True), done.stderr
    assert "Traceback" not in done.stderr
