"""Builds the clusters of a traffic split as dictionaries. `routes` has the routes to them. Six kinds of cluster:

* a *version*, named by its tag: its backends with their health checks and circuit breaker;
* a *choice*, named `digits:v2>digits:v1`: the version that the split chose, then the version that answers if the first
  does not. Its metadata keeps the chosen tag, so that the metrics can tell "chosen and answered" from "fell back";
* a *shadow*, named `shadow/digits:v2`: the same backends, only for copies of requests, so that its statistics count
  only copies; if the steps compare requests, stable also has a shadow;
* an *observed* cluster, named `observed/` and the name of any of these: the same, for requests whose answers are passed
  to the observer;
* a *recorded* cluster, named `recorded/digits:v1`: the same, for requests to stable that are kept with their answers;
* a *repeat*, named `repeat/digits:v1`: stable's backends for requests that it gets twice; see `observation`.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import quote

from contract import observation
from contract.http import SECRET_HEADER
from rollout.fleet import Backend, Version
from rollout.routers.envoy.api import TYPE, Resource
from rollout.routers.envoy.observation import (
    FEEDBACK,
    HTTP_1,
    HTTP_OPTIONS,
    OBSERVER,
    RECORDED,
    REPEAT,
    compared,
    feedback_cluster,
    is_observed,
    is_read,
    observer_cluster,
    read,
    recordable,
    recorded,
    shown,
    takes_feedback,
)
from rollout.routers.envoy.sampling import OBSERVED
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split

# Neither ">" nor "/" can be in a Bento tag.
FALLBACK = ">"
SHADOW = "shadow/"


def clusters_for(split: Split, settings: GatewaySettings) -> dict[str, Resource]:
    """Every cluster that `routes_for(split)` needs, by name."""
    clusters = [_version_cluster(version, version.tag, settings) for version in split.versions]
    if (fallback := fallback_of_stable(split)) is not None:
        clusters.append(_choice_cluster(split.stable, fallback, settings))
    if split.canary is not None:
        clusters.append(_choice_cluster(split.canary, split.stable, settings))
        copied_to = (split.canary, split.stable) if split.compare_percent else (split.canary,) if split.mirror else ()
        clusters += [_version_cluster(version, SHADOW + version.tag, settings) for version in copied_to]
    named = {cluster["name"]: cluster for cluster in clusters}
    named |= _shown(split, settings, named)
    if takes_feedback(split, settings):
        named[FEEDBACK] = feedback_cluster(settings)
    if settings.has_observer and not split.keeps_contract:
        named[OBSERVER] = observer_cluster(settings)
    if is_recordable(split, settings):
        tag = split.stable.tag
        named[RECORDED + tag] = recorded(_another_name(RECORDED + tag, named[tag], [tag], tag, settings), tag)
        if OBSERVED + tag in named:
            named[OBSERVED + tag] = recordable(named[OBSERVED + tag], tag)
    return named


def is_recordable(split: Split, settings: GatewaySettings) -> bool:
    """Whether requests can be recorded with stable's answers: no other version may answer in its place."""
    return settings.has_observer and not split.keeps_contract and fallback_of_stable(split) is None


def clusters_of(tag: str) -> tuple[str, ...]:
    """Names of the clusters that send requests to `tag` itself."""
    return tag, SHADOW + tag, REPEAT + tag


def _shown(split: Split, settings: GatewaySettings, named: Mapping[str, Resource]) -> dict[str, Resource]:
    """The clusters whose answers are passed to the observer.

    Each is another name of a version's own cluster, so connections, health checks and statistics stay the same. Only
    the copies made for the observer alone have no other cluster.
    """
    found: dict[str, Resource] = {}
    for name, told in _told(split, settings).items():
        if name.startswith(REPEAT):
            made = _version_cluster(split.stable, name, settings)
        else:
            members = name.removeprefix(SHADOW).split(FALLBACK)
            shadow = SHADOW if name.startswith(SHADOW) else ""
            behind = [shadow + tag for tag in members]
            made = _another_name(OBSERVED + name, named[name], behind, members[0], settings)
        shows_requests = split.answers.reads_requests and observation.READ in told
        found[made["name"]] = shown(made, told, shows_requests=shows_requests)
    return found


def _told(split: Split, settings: GatewaySettings) -> dict[str, dict[str, str]]:
    """The clusters whose answers are passed to the observer, with its metadata."""
    told: dict[str, dict[str, str]] = {}
    stable, canary = split.stable, split.canary
    to_stable = choice_name(stable, fallback_of_stable(split))
    chosen = {to_stable: stable.tag}
    if canary is not None and not split.mirror:
        chosen[choice_name(canary, stable)] = canary.tag
    if is_observed(split, settings) and canary is not None:
        told[to_stable] = compared(observation.STABLE, split)
        told[REPEAT + stable.tag] = compared(observation.REPEAT, split)
        told[SHADOW + canary.tag] = compared(observation.COPY, split)
        if split.compare_percent:
            told[choice_name(canary, stable)] = compared(observation.CANARY, split)
            told[SHADOW + stable.tag] = compared(observation.STABLE_COPY, split)
    if is_read(split, settings):
        for name, tag in chosen.items():
            told[name] = told.get(name, {}) | read(tag)
    return told


def fallback_of_stable(split: Split) -> Version | None:
    """The version that answers if stable cannot; None: there is none.

    A canary in the shadow step has not earned traffic yet: if stable dies then, the answer is 503. A canary that serves
    users because of evidence is better for them than no answer.
    """
    return split.canary if split.canary_percent > 0 else split.fallback


def choice_name(chosen: Version, fallback: Version | None) -> str:
    """The cluster that sends a request to `chosen`, and to `fallback` if that does not answer."""
    return chosen.tag if fallback is None else chosen.tag + FALLBACK + fallback.tag


def _version_cluster(version: Version, name: str, settings: GatewaySettings) -> Resource:
    readiness = version.service.readiness
    return _named(name, version.tag, settings) | {
        "type": "STATIC" if all(_is_ip(backend.host) for backend in version.backends) else "STRICT_DNS",
        "lb_policy": "ROUND_ROBIN",  # LEAST_REQUEST prefers a dead process, because it has no requests
        "dns_lookup_family": "V4_PREFERRED",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(backend) for backend in version.backends]}],
        },
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},  # nothing is sent to a dead version
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 3,  # one slow answer on a busy machine does not make a version unhealthy
                "healthy_threshold": 1,
                "http_health_check": {
                    "path": readiness.path,
                    **headers_with(version.secret),
                    "expected_statuses": [{"start": 200, "end": readiness.below}],
                },
            }
        ],
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                **HTTP_1,
                # Otherwise a request could use a connection that the backend is just closing.
                "common_http_protocol_options": {"idle_timeout": f"{version.service.idle_s:g}s"},
            }
        },
    }


def headers_with(secret: str) -> Resource:
    """Headers with a version's secret for each request. They replace a client's own; an empty secret: there is none."""
    header = {"key": SECRET_HEADER, "value": secret}
    added = {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {"request_headers_to_add": [added]} if secret else {}


def _choice_cluster(chosen: Version, fallback: Version, settings: GatewaySettings) -> Resource:
    return _aggregate(choice_name(chosen, fallback), chosen.tag, [chosen.tag, fallback.tag], settings)


def _aggregate(name: str, tag: str, members: list[str], settings: GatewaySettings) -> Resource:
    """A cluster that sends each request to the first of `members` that is up; `tag`: the version it represents."""
    return _named(name, tag, settings) | {
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": TYPE + "extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": members,
            },
        },
    }


def _another_name(name: str, of: Resource, members: list[str], tag: str, settings: GatewaySettings) -> Resource:
    """The cluster `of` under another name, with the same statistics but its own filters."""
    return _aggregate(name, tag, members, settings) | {"alt_stat_name": of["alt_stat_name"]}


def _named(name: str, tag: str, settings: GatewaySettings) -> Resource:
    limit = settings.max_requests_per_version
    return {
        "@type": TYPE + "config.cluster.v3.Cluster",
        "name": name,
        # Envoy splits statistic names at dots and replaces colons; percent-encoding keeps the tag recoverable.
        "alt_stat_name": quote(name, safe="").replace(".", "%2E"),
        "metadata": _version_metadata(tag),
        "connect_timeout": "1s",
        "circuit_breakers": {
            "thresholds": [
                # As many retries as requests: if a version dies, each of its requests is retried.
                dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), limit)
            ]
        },
    }


def _endpoint(backend: Backend) -> Resource:
    address = {"socket_address": {"address": backend.host, "port_value": backend.port}}
    return {"endpoint": {"address": address}, "metadata": _version_metadata(backend.tag)}


def _version_metadata(tag: str) -> Resource:
    return {"filter_metadata": {"kanaria": {"version": tag}}}


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
