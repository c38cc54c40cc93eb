"""A traffic split as Envoy clusters and routes, and back: dictionaries in, dictionaries out. Three kinds of cluster:

* a *version*, named by its tag: its backends with their health checks and circuit breaker;
* a *choice*, named `digits:v2>digits:v1`: the version that the split chose, then the one that answers
  when it does not. Its metadata keeps the chosen tag, so that the metrics can tell
  "chosen and answered" from "fell back";
* a *shadow*, named `shadow/digits:v2`: the same backends again, for mirrored requests only, so that
  its statistics count only these.

Every resource is a JSON object of the Envoy v3 API (https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api).
"""

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from contract.http import (
    FEEDBACK_PATH,
    LIVE_PATH,
    PREDICT_PATH,
    READY_PATH,
    REQUEST_ID_HEADER,
    VERSION_HEADER,
)
from rollout.fleet import Backend, Version
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import ObservedSplit, Split

ROUTE_CONFIG = "kanaria"
API_KEY_FILTER = "api_key"
CORS_FILTER = "cors"
USER_FILTER = "user"
USER_METADATA = "kanaria.user"  # where the access log finds who a sticky request came from
TYPE = "type.googleapis.com/envoy."

Resource = dict[str, Any]  # one message of the Envoy API, as JSON

# Neither ">" nor "/" can be in a Bento tag.
FALLBACK = ">"
SHADOW = "shadow/"

_HUNDREDTHS = 100  # Envoy's weights are integers relative to their sum: hundredths of a percent here


def clusters_for(split: Split, settings: GatewaySettings) -> dict[str, Resource]:
    """Every cluster that `routes_for(split)` needs, by name."""
    versions = [version for version in (split.stable, split.canary, split.fallback) if version is not None]
    clusters = [_version_cluster(version, version.tag, settings) for version in versions]
    if (fallback := _fallback_of_stable(split)) is not None:
        clusters.append(_choice_cluster(split.stable, fallback, settings))
    if split.canary is not None:
        clusters.append(_choice_cluster(split.canary, split.stable, settings))
        if split.mirror:
            clusters.append(_version_cluster(split.canary, SHADOW + split.canary.tag, settings))
    return {cluster["name"]: cluster for cluster in clusters}


def routes_for(split: Split | None, settings: GatewaySettings) -> Resource:
    """The route table of `split`; None: no version exists yet, and every request is answered 503."""
    open_to_all = {API_KEY_FILTER: {"@type": TYPE + "config.route.v3.FilterConfig", "disabled": True}}
    routes: list[Resource] = [
        {
            "match": {"path": LIVE_PATH},
            "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}},
            "typed_per_filter_config": open_to_all,
        },
        {"match": {"path": PREDICT_PATH}, **_action(split, settings, predict=True), **_user_of(split)},
        {"match": {"path": FEEDBACK_PATH}, **_action(split, settings)},
        {"match": {"path": "/docs.json"}, **_action(split, settings)},
        {"match": {"path": READY_PATH}, **_action(split, settings), "typed_per_filter_config": open_to_all},
        {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
    ]
    return {
        "@type": TYPE + "config.route.v3.RouteConfiguration",
        "name": ROUTE_CONFIG,
        "virtual_hosts": [{"name": "gateway", "domains": ["*"], "routes": routes, **_cross_origin(settings)}],
    }


def split_of(routes: Mapping[str, Any]) -> ObservedSplit | None:
    """Read a split back from a route table; None when it serves no version.

    Args:
        routes: a RouteConfiguration as Envoy's admin shows it, which leaves out zeros and defaults.
    """
    for route in routes["virtual_hosts"][0]["routes"]:
        if route["match"].get("path") == PREDICT_PATH and "route" in route:
            stable, *canary = route["route"]["weighted_clusters"]["clusters"]
            stable_tag, _, fallback = stable["name"].partition(FALLBACK)
            return ObservedSplit(
                stable=stable_tag,
                canary=canary[0]["name"].partition(FALLBACK)[0] if canary else None,
                canary_percent=canary[0].get("weight", 0) / _HUNDREDTHS if canary else 0,
                mirror="request_mirror_policies" in route["route"],
                fallback=fallback if fallback and not canary else None,
            )
    return None


def clusters_used(routes: Mapping[str, Any], clusters: Mapping[str, Resource]) -> dict[str, Resource]:
    """The ones of `clusters` that a request under `routes` may still need, choices with their members."""
    split = split_of(routes)
    if split is None:
        return {}
    tags = {split.stable, split.canary, split.fallback}
    return {
        name: cluster
        for name, cluster in clusters.items()
        if tags.issuperset(name.removeprefix(SHADOW).split(FALLBACK))
    }


def clusters_of(tag: str) -> tuple[str, ...]:
    """Names of the clusters that send requests to `tag` itself."""
    return tag, SHADOW + tag


def _cross_origin(settings: GatewaySettings) -> Resource:
    """Which other sites' pages may read the answers. They bring a key in a header, never a cookie."""
    if not settings.cors_origins:
        return {}
    matchers = [
        {"safe_regex": {"regex": ".*"}} if origin == "*" else {"exact": origin} for origin in settings.cors_origins
    ]
    policy = {
        "@type": TYPE + "extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": matchers,
        "allow_methods": "GET, POST",
        "allow_headers": "*",
        "expose_headers": f"{REQUEST_ID_HEADER}, {VERSION_HEADER}, retry-after",
        "max_age": "600",
        "forward_not_matching_preflights": False,
    }
    return {"typed_per_filter_config": {CORS_FILTER: policy}}


def _fallback_of_stable(split: Split) -> Version | None:
    # A canary in the shadow has not earned any traffic yet: when stable dies then, the answer is 503. A canary that
    # already serves users by evidence is better for them than no answer.
    return split.canary if split.canary_percent > 0 else split.fallback


def _action(split: Split | None, settings: GatewaySettings, *, predict: bool = False) -> Resource:
    if split is None:
        return {"direct_response": {"status": 503}}
    stable = _choice_name(split.stable, _fallback_of_stable(split))
    action: Resource = {"timeout": f"{settings.request_timeout_s}s"}
    if not predict:
        return {"route": action | {"cluster": stable, "retry_policy": _retries(split)}}
    action |= _predict_retries(split, settings)
    to_canary = round(_HUNDREDTHS * split.canary_percent)
    weighted = [{"name": stable, "weight": 100 * _HUNDREDTHS - to_canary}]
    if split.canary is not None:
        # Stable first: the hash of a sticky caller is compared with the running sum of the weights, so
        # the canary's share grows downwards from 100 and a rising weight never moves a caller off it.
        weighted.append({"name": _choice_name(split.canary, split.stable), "weight": to_canary})
        if split.mirror:
            action["request_mirror_policies"] = [{"cluster": SHADOW + split.canary.tag}]
    action["weighted_clusters"] = {"clusters": weighted}
    if split.sticky is not None:
        action["weighted_clusters"]["use_hash_policy"] = True
        action["hash_policy"] = [{"header": {"header_name": split.sticky}}]
    return {"route": action}


def _user_of(split: Split | None) -> Resource:
    """Records for the access log who sends a prediction request, while callers are sticky."""
    if split is None or split.sticky is None:
        return {}
    rules = [
        # Every request has a method: this key says that callers are sticky, also where the caller has no name.
        {"header": ":method", "on_header_present": {"metadata_namespace": USER_METADATA, "key": "is_sticky"}},
        {"header": split.sticky, "on_header_present": {"metadata_namespace": USER_METADATA, "key": "id"}},
    ]
    config = {"@type": TYPE + "extensions.filters.http.header_to_metadata.v3.Config", "request_rules": rules}
    return {"typed_per_filter_config": {USER_FILTER: config}}


def _predict_retries(split: Split, settings: GatewaySettings) -> Resource:
    """A prediction that waits long is sent to another process, too.

    The try that waits goes on, and the first answer counts. So a version that is slow, but alive, loses no request.
    """
    retries = _retries(split)
    if not _has_another(split):
        return {"retry_policy": retries}
    # Each try leaves the others as much time as it had itself.
    try_timeout_s = min(settings.try_timeout_s, settings.request_timeout_s / (1 + retries["num_retries"]))
    retries["per_try_timeout"] = f"{try_timeout_s:g}s"
    return {"retry_policy": retries, "hedge_policy": {"hedge_on_per_try_timeout": True}}


def _has_another(split: Split) -> bool:
    """Whether a process that is not the one tried first may answer."""
    return _fallback_of_stable(split) is not None or _is_replicated(split)


def _is_replicated(split: Split) -> bool:
    return any(len(version.backends) > 1 for version in (split.stable, split.canary) if version is not None)


def _retries(split: Split) -> Resource:
    """Where a request goes that no process answered: one retry in its version if that has several, then the fallback.

    One that died with its process may have done its work: a prediction may be computed twice, and a label that comes
    twice counts once. An answer of the application is never retried, whatever its status.
    """
    retries = 2 if _is_replicated(split) else 1
    return {
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": retries,
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": TYPE + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": retries,  # the last try is the fallback's
            },
        },
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": TYPE + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,  # of a version with one process there is no other to find
    }


def _version_cluster(version: Version, name: str, settings: GatewaySettings) -> Resource:
    return _named(name, version.tag, settings) | {
        "type": "STATIC" if all(_is_ip(backend.host) for backend in version.backends) else "STRICT_DNS",
        "lb_policy": "ROUND_ROBIN",  # LEAST_REQUEST prefers a dead process, which has none
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
                "unhealthy_threshold": 3,  # one slow answer of a busy machine does not make a version unhealthy
                "healthy_threshold": 1,
                "http_health_check": {"path": READY_PATH},
            }
        ],
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                # Shorter than uvicorn's 5 s, or a request could use a connection that the backend is just closing.
                "common_http_protocol_options": {"idle_timeout": "4s"},
            }
        },
    }


def _choice_cluster(chosen: Version, fallback: Version, settings: GatewaySettings) -> Resource:
    return _named(_choice_name(chosen, fallback), chosen.tag, settings) | {
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": TYPE + "extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [chosen.tag, fallback.tag],
            },
        },
    }


def _choice_name(chosen: Version, fallback: Version | None) -> str:
    return chosen.tag if fallback is None else chosen.tag + FALLBACK + fallback.tag


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
                # As many retries as requests: when a version dies, each of its requests is retried.
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
