"""Controls a running Envoy: writes the split into its files, waits until it is in force, reads it back.

The split in force is the one that Envoy's admin endpoint shows, not the one in our files.
"""

import json
import re
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from contract.files import write_whole
from contract.known_files import KnownFiles
from contract.own_answers import OwnAnswers
from contract.polled import FAILURES, Polled
from rollout.errors import RouterRefused
from rollout.routers.envoy import admin
from rollout.routers.envoy.api import Resource
from rollout.routers.envoy.files import are_usable, read_resources, saved_resources, write_resources
from rollout.routers.envoy.resources import clusters_for, clusters_of
from rollout.routers.envoy.routes import ROUTE_CONFIG, clusters_used, routes_for, split_of
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import ObservedSplit, Refused, Split
from rollout.routers.validation import check_split

CLUSTERS = "cluster_manager.cds"  # prefix of Envoy's statistics about each file
ROUTES = f"http.gateway.rds.{ROUTE_CONFIG}"
WARMING = "cluster_manager.warming_clusters"
NO_KEY = "http.gateway.api_key_auth.unauthorized"
REFUSED = "http.gateway.downstream_rq_4xx"  # for any reason
POLL_S = 0.01


class EnvoyRouter:
    """The Envoy gateway as a data plane.

    Args:
        settings: the settings with which the gateway was started.
        timeout_s: longest wait for a change to come into force, seconds.
    """

    def __init__(self, settings: GatewaySettings, *, timeout_s: float = 10.0) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        # What Envoy last showed, by the version of its table and its number of reloads: reading the whole table at
        # every tick took a sixth of the controller's time.
        self._shown: tuple[object, ObservedSplit | None] | None = None
        self._written = KnownFiles(_version_in)

    @property
    def asks_for_keys(self) -> bool:
        return self._settings.asks_for_keys

    def apply(self, split: Split) -> None:
        """Put `split` in force and return once it is; clients notice nothing.

        Raises: RouterRefused; then the previous split stays in force. An unreachable gateway will start with `split`.
        """
        check_split(split)
        wanted, routes = clusters_for(split, self._settings), routes_for(split, self._settings)
        clusters, routes_now = self._files()
        if routes_now is not None and (routes != routes_now or clusters | wanted != clusters):
            # The clusters of the previous split stay until the next change: requests that were just routed still need
            # them, and so does the count of requests in flight.
            clusters = clusters_used(routes_now, clusters)
        clusters = clusters | wanted
        if not are_usable([routes], clusters):
            raise RouterRefused(
                "the split names a version that the gateway does not know; the previous split stays in force",
                saw=f"clusters {', '.join(clusters)}",
                do="report this: it is a bug in Kanaria",
            )
        # Clusters first, so that no route names an unknown cluster.
        files = {self._settings.clusters_path: list(clusters.values()), self._settings.routes_path: [routes]}

        stats = self._stats()
        if stats is None:
            for path, resources in files.items():
                _write(path, resources)
            raise RouterRefused(
                "the gateway cannot be reached; the split is saved, and the gateway will start with it",
                saw="no answer from its admin",
                do="start the gateway and apply the split again",
            )
        if self._settings.has_observer:
            _tell_observer(self._settings.answers_path, split.answers)
        for path, resources in files.items():
            self._install(path, resources, rejections=_rejections(stats))

    def observed(self) -> ObservedSplit | None:
        """The split that Envoy serves; None while it cannot be reached, converges or has no version.

        A damaged file also gives None, because Envoy would not find it after a restart. The next `apply` rewrites it.
        """
        stats, written = self._stats(), self._versions()
        if stats is None or None in written.values() or _is_converging(stats, written):
            return None
        now = stats[f"{ROUTES}.version_text"], stats.get(f"{ROUTES}.config_reload")
        if self._shown is None or self._shown[0] != now:
            dump = self._get("/config_dump", resource="dynamic_route_configs")
            if dump is None or dump["configs"][0]["version_info"] != now[0]:
                return None
            self._shown = now, split_of(dump["configs"][0]["route_config"])
        return self._shown[1]

    def requests_in_flight(self, tag: str) -> int | None:
        """Requests, including mirrored ones, that the backend of `tag` has not answered; None: unknown."""
        answer = self._get("/clusters", format="json")
        if answer is None:
            return None
        backends = [
            host
            for cluster in answer["cluster_statuses"]
            if cluster["name"] in clusters_of(tag)
            for host in cluster.get("host_statuses", ())
        ]
        if not backends:
            return None
        return sum(
            int(stat.get("value", 0))  # Envoy leaves zeros out
            for backend in backends
            for stat in backend["stats"]
            if stat["name"] in {"rq_active", "rq_pending_active"}
        )

    def refused(self) -> Refused | None:
        """Requests that Envoy refused since its start; None if it cannot be reached."""
        answer = self._get("/stats", format="json", filter=rf"^({re.escape(NO_KEY)}|{re.escape(REFUSED)})$")
        if answer is None:
            return None
        found = {stat["name"]: int(stat["value"]) for stat in answer["stats"] if "name" in stat}
        for_key = found.get(NO_KEY, 0)  # Envoy does not count them if it requires no key
        return Refused(for_key, max(0, found.get(REFUSED, 0) - for_key))

    def _files(self) -> tuple[dict[str, Resource], Resource | None]:
        """The last written clusters by name, and the route table; None if neither it nor its spare is usable."""
        if not self._settings.bootstrap_path.exists():
            raise RouterRefused(
                "the gateway was never set up", saw=f"no file {self._settings.bootstrap_path}", do="run `kanaria up`"
            )
        clusters = {cluster["name"]: cluster for cluster in saved_resources(self._settings.clusters_path) or ()}
        routes = saved_resources(self._settings.routes_path) or []
        return clusters, routes[0] if are_usable(routes, clusters) else None

    def _install(self, path: Path, resources: list[Resource], *, rejections: int) -> None:
        """Replace one file, unless it is the same, and wait until it is in force. On failure, restore the old file."""
        found = read_resources(path)
        if found is None or resources != found[1]:
            _write(path, resources)
        try:
            self._wait_until_in_force(rejections)
        except RouterRefused:
            if found is not None:
                _write(path, found[1])
            raise

    def _wait_until_in_force(self, rejections: int) -> None:
        deadline = time.monotonic() + self._timeout_s
        while (stats := self._stats()) is None or _is_converging(stats, self._versions()):
            if stats is not None and _rejections(stats) > rejections:
                raise RouterRefused(
                    "Envoy rejected the split; the previous split stays in force",
                    saw=f"{_rejections(stats)} rejected updates, {rejections} before",
                    do="read the reason in the gateway's log",
                )
            if time.monotonic() > deadline:
                raise RouterRefused(
                    f"the split did not come into force within {self._timeout_s:g} s; the previous split was restored",
                    saw=f"{stats or 'no answer'} from its admin",
                    do="read the gateway's log, then apply the split again",
                )
            time.sleep(POLL_S)

    def _versions(self) -> dict[str, str | None]:
        """The version of each file, by Envoy's name for its content; None for a file that cannot be used."""
        files = {CLUSTERS: self._settings.clusters_path, ROUTES: self._settings.routes_path}
        return {subject: self._written.at(path) for subject, path in files.items()}

    def _stats(self) -> Mapping[str, Any] | None:
        """Envoy's statistics about the two files; None if it cannot be reached."""
        subjects = "|".join(re.escape(name) for name in (CLUSTERS, ROUTES))
        pattern = rf"^(({subjects})\.(version_text|update_rejected|config_reload)|{re.escape(WARMING)})$"
        answer = self._get("/stats", format="json", filter=pattern)
        return None if answer is None else {stat["name"]: stat["value"] for stat in answer["stats"] if "name" in stat}

    @cached_property
    def _admin(self) -> Polled:
        return admin.polled(self._settings, timeout_s=2.0)

    def _get(self, path: str, **query: str) -> Any:
        """The JSON answer of Envoy's admin; None if it cannot be reached."""
        try:
            answer = self._admin.get(path, query)
            return json.loads(answer.body) if answer.is_success else None
        except (*FAILURES, ValueError):  # ValueError: something other than Envoy answers
            return None


def _version_in(path: Path) -> str | None:
    """The version of a file; None if it cannot be used."""
    found = read_resources(path)
    return found and found[0]


def _write(path: Path, resources: list[Resource]) -> None:
    try:
        write_resources(path, resources)
    except OSError as error:
        raise RouterRefused(
            "the split cannot be written; the previous split stays in force",
            saw=str(error),
            do=f"make room on the disk of {path.parent}, or correct its permissions",
        ) from error


def _tell_observer(path: Path, answers: OwnAnswers) -> None:
    """Tell the observer what to count of answers, before it gets them."""
    content = answers.model_dump_json(exclude_defaults=True)
    try:
        if not path.exists() or path.read_text() != content:
            write_whole(path, content, mode=0o600)
    except OSError as error:
        raise RouterRefused(
            "the observer's file of what to count cannot be written; the previous split stays in force",
            saw=str(error),
            do=f"make room on the disk of {path.parent}, or correct its permissions",
        ) from error


def _is_converging(stats: Mapping[str, Any], written: Mapping[str, str | None]) -> bool:
    """Whether Envoy has not yet loaded the versions in `written`; see `EnvoyRouter._versions`."""
    # A starting Envoy answers before it has these entries. A damaged file will be replaced later.
    return any(
        version is not None and stats.get(f"{subject}.version_text") != version for subject, version in written.items()
    ) or bool(stats[WARMING])


def _rejections(stats: Mapping[str, Any]) -> int:
    return sum(int(stats.get(f"{subject}.update_rejected", 0)) for subject in (CLUSTERS, ROUTES))
