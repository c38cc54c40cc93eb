"""Prometheus's configuration, targets files and command line. The rules are in monitoring/rules/."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import yaml

from contract.http import METRICS_PATH
from contract.metrics import OF_VERSIONS
from monitoring.prometheus.trusted import Trusted
from monitoring.prometheus.user import USER

RULES = tuple(Path(__file__).parents[1] / "rules" / name for name in ("alerts.yaml", "slo.yaml"))
JOBS: Mapping[str, str] = MappingProxyType(  # job -> path of its metrics
    {"gateway": "/stats/prometheus", "controller": METRICS_PATH, "service": METRICS_PATH, "observer": METRICS_PATH}
)
VERSIONS = "service"
OPEN_VERSIONS = "service-open"  # the targets that require no secret; their series have the job of all versions
# Series that a version may not export, because they belong to the gateway, the controller or Prometheus: alerts and
# people rely on them. Of Kanaria's own names, a version may export those of `OF_VERSIONS`.
_NOT_OF_VERSIONS = "kanaria_.+|envoy_kanaria_.+|envoy_cluster_upstream_rq.*|slo:.+|up|scrape_.+|ALERTS.*"
_OF_VERSIONS = "|".join(series for metric in OF_VERSIONS for series in metric.series)
_LARGEST_PAGE = "16MB"  # the controller's own limit
_ONLY_ITS_OWN: tuple[Mapping[str, object], ...] = (
    {"source_labels": ["__name__"], "regex": _NOT_OF_VERSIONS, "target_label": "__tmp_not_its_own", "replacement": "1"},
    {"source_labels": ["__name__"], "regex": _OF_VERSIONS, "target_label": "__tmp_not_its_own", "replacement": ""},
    {"source_labels": ["__tmp_not_its_own"], "regex": "1", "action": "drop"},
)
# Limits, so that an expensive query does not exhaust the memory or block the controller for long, and idle connections
# are closed.
_LIMITS = ("--query.timeout=30s", "--query.max-samples=20000000", "--query.max-concurrency=8", "--web.read-timeout=30s")
WEB_CONFIG = "--web.config.file="
_EVALUATION_S = (
    5.0  # between evaluations of rules: every second would cost more than all scrapes, and no alert has a shorter `for`
)
_RETENTION = "32d"  # how long samples are kept: longer than the period of an objective
# Keeps only the lines about versions, of about 1,000 on Envoy's page. It matches Envoy's own names, not Prometheus's.
GATEWAY_FILTER = r"^kanaria\.|^cluster\.shadow[^.]*\.upstream_rq_(\d+|time)$"


@dataclass(frozen=True, slots=True)
class Target:
    """One process to scrape. Its `instance` label becomes `address`.

    It has no label `version`: Prometheus would rename the metrics' own label of that name to `exported_version`.
    """

    address: str  # host:port
    path: str = METRICS_PATH  # of its metrics page


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    targets_dir: Path  # holds `<job>.json` for each of JOBS, written with `file_sd`; read again at each change
    scrape_interval_s: float = 5.0
    rule_files: tuple[Path, ...] = RULES
    alertmanager: str | None = None  # host:port
    controller: Trusted | None = None  # set if the controller speaks TLS
    password_file: Path | None = None  # of the user that Alertmanager requires; None: it requires none
    secret_file: Path | None = None  # the secret that versions require at their ports; None: none


def prometheus_config(settings: PrometheusSettings) -> str:
    """The text of prometheus.yml."""
    scrape_s = settings.scrape_interval_s
    config: dict[str, object] = {
        "global": {
            "scrape_interval": _duration(scrape_s),
            "evaluation_interval": _duration(max(scrape_s, _EVALUATION_S)),
        },
        "rule_files": [str(path) for path in settings.rule_files],
        "scrape_configs": [
            *(_scraped(job, path, settings) for job, path in JOBS.items()),
            _scraped(OPEN_VERSIONS, JOBS[VERSIONS], settings),
        ],
    }
    if settings.alertmanager is not None:
        alertmanager: dict[str, object] = {"static_configs": [{"targets": [settings.alertmanager]}]}
        if settings.password_file is not None:
            alertmanager["basic_auth"] = {"username": USER, "password_file": str(settings.password_file)}
        config["alerting"] = {"alertmanagers": [alertmanager]}
    return yaml.safe_dump(config, sort_keys=False)


def _scraped(job: str, path: str, settings: PrometheusSettings) -> dict[str, object]:
    targets = {"files": [str(settings.targets_dir / f"{job}.json")]}
    scraped: dict[str, object] = {"job_name": job, "metrics_path": path, "file_sd_configs": [targets]}
    if job == "gateway":
        scraped["params"] = {"filter": [GATEWAY_FILTER]}
    if job == "controller" and settings.controller is not None:
        scraped |= {"scheme": "https", "tls_config": settings.controller.tls_config}
    if job in (VERSIONS, OPEN_VERSIONS):
        scraped |= {"body_size_limit": _LARGEST_PAGE, "metric_relabel_configs": [dict(rule) for rule in _ONLY_ITS_OWN]}
    if job == VERSIONS and settings.secret_file is not None:
        scraped["authorization"] = {"credentials_file": str(settings.secret_file)}
    return scraped


def file_sd(targets: Iterable[Target], *, job: str | None = None) -> str:
    """The text of a targets file. Replace the file with a rename: Prometheus would read a half-written file.

    Args:
        job: the label `job` of their series; None: the name of the scrape job.
    """
    return json.dumps([_listed(target, job) for target in targets], indent=2)


def _listed(target: Target, job: str | None) -> dict[str, object]:
    labels = {"job": job} if job else {}
    labels |= {"__metrics_path__": target.path} if target.path != METRICS_PATH else {}
    return {"targets": [target.address], **({"labels": labels} if labels else {})}


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def prometheus_command(
    program: str, *, config: Path, data_dir: Path, listen: str, web_config: Path | None = None
) -> list[str]:
    """The command that runs Prometheus.

    Args:
        program: path of the `prometheus` binary.
        config: path of prometheus.yml.
        data_dir: where it keeps its samples.
        listen: `host:port` of its API and page.
        web_config: the file of `--web.config.file`, which says who may use them; None: everyone.
    """
    return [
        program,
        f"--config.file={config}",
        *([f"{WEB_CONFIG}{web_config}"] if web_config else []),
        f"--storage.tsdb.path={data_dir}",
        f"--storage.tsdb.retention.time={_RETENTION}",
        f"--web.listen-address={listen}",
        *_LIMITS,
        "--log.level=warn",
    ]
