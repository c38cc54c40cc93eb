"""Writes the scrape targets of a Prometheus: the stack's own, or another such as that of compose.yaml."""

from collections.abc import Sequence

from contract.files import write_whole
from kanaria.settings import Settings
from monitoring.prometheus.configuration import JOBS, OPEN_VERSIONS, VERSIONS, Target, file_sd
from rollout.fleet import Backend


def write_targets(settings: Settings, *, gateway: str, observer: str | None) -> None:
    """Write the targets that exist before any version runs.

    Args:
        gateway: `host:port` of the gateway's metrics.
        observer: `host:port` of the observer's metrics; None: there is none.
    """
    settings.targets.mkdir(parents=True, exist_ok=True)
    settings.targets.chmod(0o755)  # a Prometheus in a container reads this folder as another user
    settings.prometheus_address.unlink(missing_ok=True)  # of an earlier run
    own = {"gateway": gateway, "controller": settings.controller_address}
    if observer is not None:
        own["observer"] = observer
    for job in (*JOBS, OPEN_VERSIONS):
        listed = [Target(own[job])] if job in own else []
        write_whole(settings.targets / f"{job}.json", file_sd(listed), is_public=True)


def write_versions(settings: Settings, backends: Sequence[Backend], *, knows_secret: bool) -> None:
    """Write the targets of versions. Those that check no secret are listed separately: they are sent none.

    Args:
        knows_secret: whether Prometheus has the secret; one of an earlier Kanaria has not, and reads one list only.
    """
    counting = [backend for backend in backends if backend.has_metrics]
    is_open = {backend: knows_secret and not backend.secret for backend in counting}
    for job, wanted in ((VERSIONS, False), (OPEN_VERSIONS, True)):
        targets = [Target(backend.address, backend.metrics_path) for backend in counting if is_open[backend] is wanted]
        write_whole(settings.targets / f"{job}.json", file_sd(targets, job=VERSIONS), is_public=True)
