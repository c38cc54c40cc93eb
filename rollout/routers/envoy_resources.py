"""A traffic split as Envoy clusters and routes, and back. Pure: dictionaries in, dictionaries out.

`routers/envoy.py` writes what is built here and reads back what Envoy says. Three kinds of cluster:

* a *version*, named by its tag: one backend with its health checks and circuit breaker;
* a *choice*, named `digits:v2>digits:v1`: the version that the weighted split chose, then the one
  that answers when it is dead. Its metadata keeps the chosen tag, so that the metrics can tell
  "chosen and answered" from "fell back";
* a *shadow*, named `shadow/digits:v2`: the same backend again, for mirrored requests only, so that
  its statistics are only theirs.

Every resource is a JSON object of the Envoy v3 API (https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api).
"""

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from rollout.interfaces import Backend, ObservedSplit, Split
from rollout.routers.envoy_settings import GatewaySettings

ROUTE_CONFIG = "kanaria"
API_KEY_FILTER = "api_key"
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
    clusters = [_version_cluster(split.stable, split.stable.tag, settings)]
    if split.canary is not None:
        clusters += [
            _version_cluster(split.canary, split.canary.tag, settings),
            _choice_cluster(split.canary, split.stable, settings),
        ]
        if _stable_may_fall_back(split):
            clusters.append(_choice_cluster(split.stable, split.canary, settings))
        if split.mirror:
            clusters.append(_version_cluster(split.canary, SHADOW + split.canary.tag, settings))
    return {cluster["name"]: cluster for cluster in clusters}


def routes_for(split: Split | None, settings: GatewaySettings) -> Resource:
    """The route table of `split`; None: no version exists yet, and every request is answered 503."""
    open_to_all = {API_KEY_FILTER: {"@type": TYPE + "config.route.v3.FilterConfig", "disabled": True}}
    routes: list[Resource] = [
        {
            "match": {"path": "/livez"},
            "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}},
            "typed_per_filter_config": open_to_all,
        },
        {"match": {"path": "/predict"}, **_action(split, settings, predict=True), **_user_of(split)},
        {"match": {"path": "/feedback"}, **_action(split, settings)},
        {"match": {"path": "/docs.json"}, **_action(split, settings)},
        {"match": {"path": "/readyz"}, **_action(split, settings), "typed_per_filter_config": open_to_all},
        {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
    ]
    return {
        "@type": TYPE + "config.route.v3.RouteConfiguration",
        "name": ROUTE_CONFIG,
        "virtual_hosts": [{"name": "gateway", "domains": ["*"], "routes": routes}],
    }


def split_of(routes: Mapping[str, Any]) -> ObservedSplit | None:
    """Read a split back from a route table; None when it serves no version.

    Args:
        routes: a RouteConfiguration as Envoy's admin shows it, which leaves out zeros and defaults.
    """
    for route in routes["virtual_hosts"][0]["routes"]:
        if route["match"].get("path") == "/predict" and "route" in route:
            stable, *canary = route["route"]["weighted_clusters"]["clusters"]
            return ObservedSplit(
                stable=stable["name"].partition(FALLBACK)[0],
                canary=canary[0]["name"].partition(FALLBACK)[0] if canary else None,
                canary_percent=canary[0].get("weight", 0) / _HUNDREDTHS if canary else 0,
                mirror="request_mirror_policies" in route["route"],
            )
    return None


def clusters_used(routes: Mapping[str, Any], clusters: Mapping[str, Resource]) -> dict[str, Resource]:
    """Those of `clusters` that a request under `routes` may still need, choices with their members."""
    split = split_of(routes)
    if split is None:
        return {}
    tags = {split.stable, split.canary}
    return {
        name: cluster
        for name, cluster in clusters.items()
        if tags.issuperset(name.removeprefix(SHADOW).split(FALLBACK))
    }


def clusters_of(tag: str) -> tuple[str, ...]:
    """Names of the clusters whose requests really go to `tag`."""
    return tag, SHADOW + tag


def _stable_may_fall_back(split: Split) -> bool:
    # A canary in the shadow has not earned a single user: when stable dies then, a 503 is the honest
    # answer. One that already serves users by evidence is better for them than none.
    return split.canary_percent > 0


def _action(split: Split | None, settings: GatewaySettings, *, predict: bool = False) -> Resource:
    if split is None:
        return {"direct_response": {"status": 503}}
    fallback = split.canary if _stable_may_fall_back(split) else None
    stable = _choice_name(split.stable, fallback)
    action: Resource = {"timeout": f"{settings.request_timeout_s}s", "retry_policy": _retries(idempotent=predict)}
    if not predict:
        return {"route": action | {"cluster": stable}}
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
    """Note for the access log who sends a prediction, while callers are kept on one side."""
    if split is None or split.sticky is None:
        return {}
    rules = [
        # Every request has a method: this key says that callers are sticky, also where the caller has no name.
        {"header": ":method", "on_header_present": {"metadata_namespace": USER_METADATA, "key": "is_sticky"}},
        {"header": split.sticky, "on_header_present": {"metadata_namespace": USER_METADATA, "key": "id"}},
    ]
    config = {"@type": TYPE + "extensions.filters.http.header_to_metadata.v3.Config", "request_rules": rules}
    return {"typed_per_filter_config": {USER_FILTER: config}}


def _retries(*, idempotent: bool) -> Resource:
    """One retry, on the version that was not tried yet; never for an answer of the application, whatever its status."""
    safe_always = "connect-failure,refused-stream,reset-before-request"
    return {
        # A prediction may be computed twice, so a request that died with its process is sent again. Feedback may not.
        "retry_on": f"{safe_always},reset" if idempotent else safe_always,
        "num_retries": 1,
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": TYPE + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
    }


def _version_cluster(backend: Backend, name: str, settings: GatewaySettings) -> Resource:
    return _named(name, backend.tag, settings) | {
        "type": "STATIC" if _is_ip(backend.host) else "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(backend)]}],
        },
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},  # nothing is sent to a dead version
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 3,  # one slow answer of a busy machine is not an illness
                "healthy_threshold": 1,
                "http_health_check": {"path": "/readyz"},
            }
        ],
        # Only what the gateway itself saw (no connection, reset, no answer in time) ejects a version. A 5xx that the
        # application wrote must reach the client and be counted, or a bad canary would hide behind its fallback.
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 5,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_time": "5s",
            "max_ejection_percent": 100,
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                # Shorter than uvicorn's 5 s, or a request meets a connection that the backend is just closing.
                "common_http_protocol_options": {"idle_timeout": "4s"},
            }
        },
    }


def _choice_cluster(chosen: Backend, fallback: Backend, settings: GatewaySettings) -> Resource:
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


def _choice_name(chosen: Backend, fallback: Backend | None) -> str:
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
                # As many retries as requests: when a version dies, each of its requests is one.
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
