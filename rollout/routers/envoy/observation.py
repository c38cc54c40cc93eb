"""What the gateway shows the observer.

Shown are both versions' answers to the requests that the other one gets a copy of, and all answers to users where the
plan says how to read them; always of a share of the requests, which `sampling` draws.

A share of the requests is copied to stable as well, so that the observer knows how much stable differs from itself.
The filter that shows answers is told not to wait, and to go on without an observer. One that hangs is found by health
checks and pings; until then at most `_BUFFER_BYTES` of each connection wait for it.
"""

from collections.abc import Mapping

from contract.http import FEEDBACK_PATH, OWN_REQUEST_HEADER
from contract.observation import ANSWERED_BY, CALLER, COMPARED, OWN_REQUEST, READ, RECORD, ROLE, SAMPLED
from contract.recorded import KEPT_HEADERS
from rollout.routers.envoy.api import TYPE, Resource
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split

OBSERVER = "observer"  # the cluster
FEEDBACK = "observer-feedback"  # the cluster of its other socket
REPEAT = "repeat/"  # before a tag: the cluster of stable for requests that it is asked twice
REPEATED_PERCENT = 20

RECORDED = "recorded/"  # before a tag: the cluster of stable for requests that are recorded
NOT_RECORDED_PERCENT = "kanaria.not_recorded_percent"  # a runtime value: the share of requests that is not recorded

_OF_ANSWERS = (":status", "content-type", "content-encoding")  # headers that are shown
_MOST_STREAMS = 256  # answers that are on their way to the observer; of more it sees none
_CONNECTIONS = 4
_BUFFER_BYTES = 8 * 1024 * 1024
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
HTTP_1: Resource = {
    "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http_protocol_options": {}},
}


def is_observed(split: Split, settings: GatewaySettings) -> bool:
    """Whether answers are compared by the observer: versions of the contract do that themselves."""
    has_pairs = split.mirror or split.compare_percent > 0
    return settings.has_observer and has_pairs and not split.keeps_contract


def is_watched(split: Split, settings: GatewaySettings) -> bool:
    """Whether answers are shown to the observer, of a share of the requests."""
    return is_observed(split, settings) or is_read(split, settings)


def is_read(split: Split, settings: GatewaySettings) -> bool:
    """Whether the observer counts what users' answers say."""
    return settings.has_observer and bool(split.answers) and not split.keeps_contract


def takes_feedback(split: Split, settings: GatewaySettings) -> bool:
    """Whether labels are for the observer: the plan says what an answer is, and no version takes them itself."""
    declared = {route.path for version in split.versions for route in version.service.routes}
    return is_read(split, settings) and split.answers.has_classes and FEEDBACK_PATH not in declared


def shown(cluster: Resource, told: Mapping[str, str], *, shows_requests: bool = False) -> Resource:
    """The same cluster, with its answers shown to the observer, which is told this about them.

    Args:
        shows_requests: their bodies are shown as well.
    """
    return _with_first(_filter(told, shows_requests=shows_requests), cluster)


def is_shown(cluster: Resource) -> bool:
    """Whether the answers of a cluster are shown to the observer."""
    return any("http_filters" in options for options in cluster.get("typed_extension_protocol_options", {}).values())


def compared(role: str, split: Split) -> dict[str, str]:
    """What the observer is told about answers that are compared."""
    told = {ROLE: role, COMPARED: f"{split.stable.tag} {split.canary.tag if split.canary else ''}"}
    return told | ({SAMPLED: "yes"} if split.compare_percent else {})


def read(tag: str) -> dict[str, str]:
    """What the observer is told about answers of `tag` that it counts."""
    return {READ: tag}


def not_recorded() -> Resource:
    """The part of a route's match that holds for the requests that are not recorded: for all, unless a command says so.

    The share is a runtime value of Envoy's: recording begins and ends without another configuration, and a gateway
    that was restarted records nothing. Envoy draws it by a random number's rest by a hundred, and what is observed by
    that number's rest by a million, in steps of a hundred (`sampling`): neither draw says anything about the other.
    """
    return {"runtime_fraction": _NOT_RECORDED}


def recorded(cluster: Resource, tag: str) -> Resource:
    """The same cluster, whose requests and answers the observer is shown to be recorded."""
    return _with_first(_recorder(tag), cluster)


def recordable(cluster: Resource, tag: str) -> Resource:
    """The same for a cluster whose requests are not drawn by a route, so for a share of them that the filter draws.

    A request that is skipped costs the gateway a fifteenth more of its time, so this is for few.
    """
    return _with_first(_unless_skipped(_recorder(tag)), cluster)


def mirror_policy(split: Split) -> Resource:
    """Copies a share of the requests to stable."""
    share = {"default_value": {"numerator": REPEATED_PERCENT}}
    return {"cluster": REPEAT + split.stable.tag, "runtime_fraction": share}


def own_ids() -> list[Resource]:
    """Gives each request and its copies an id of the gateway's own: callers may give many requests one of theirs."""
    header = {"key": OWN_REQUEST_HEADER, "value": "%UNIQUE_ID%"}
    return [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]


def observer_cluster(settings: GatewaySettings) -> Resource:
    """Where the observer listens. Many answers for a slow one wait nowhere: they are not shown."""
    address = {"pipe": {"path": str(settings.observer_socket)}}
    http2 = {"connection_keepalive": {"interval": "1s", "timeout": "1s"}}
    return {
        "@type": TYPE + "config.cluster.v3.Cluster",
        "name": OBSERVER,
        "connect_timeout": "1s",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": OBSERVER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": _CONNECTIONS,
                    "max_pending_requests": _MOST_STREAMS,
                    "max_requests": _MOST_STREAMS,
                }
            ]
        },
        "health_checks": [
            {
                "timeout": "0.5s",
                "interval": "0.5s",
                "no_traffic_interval": "0.5s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": http2},
            }
        },
    }


def feedback_cluster(settings: GatewaySettings) -> Resource:
    """Where the observer takes labels."""
    address = {"pipe": {"path": str(settings.feedback_socket)}}
    return {
        "@type": TYPE + "config.cluster.v3.Cluster",
        "name": FEEDBACK,
        "connect_timeout": "1s",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": FEEDBACK,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _with_first(one: Resource, cluster: Resource) -> Resource:
    """The same cluster, with one filter more, before its others."""
    options = cluster.get("typed_extension_protocol_options", {HTTP_OPTIONS: HTTP_1})[HTTP_OPTIONS]
    filters = {"http_filters": [one, *options.get("http_filters", (_CODEC,))]}
    return cluster | {"typed_extension_protocol_options": {HTTP_OPTIONS: options | filters}}


def _filter(told: Mapping[str, str], *, shows_requests: bool) -> Resource:
    of_request = ["request.id", "xds.route_name", CALLER, OWN_REQUEST]
    asks: Resource = {"response_attributes": [*of_request, "xds.upstream_host_metadata"]}
    if shows_requests:
        asks["request_attributes"] = of_request
    return _shows(told, _OF_ANSWERS, asks=asks, requests=shows_requests)


def _recorder(tag: str) -> Resource:
    """Shows requests with their answers; of their headers those that may be kept, so no key or cookie leaves Envoy."""
    headers = (":method", ":path", *KEPT_HEADERS, *_OF_ANSWERS)
    told = {ROLE: RECORD, ANSWERED_BY: tag}
    return _shows(told, tuple(dict.fromkeys(headers)), asks={"request_attributes": ["xds.route_name"]}, requests=True)


def _unless_skipped(shown_to: Resource) -> Resource:
    """The filter, for the share of requests that is not skipped: all are, unless the runtime value says otherwise."""
    request_id = {
        "name": "request_id",
        "typed_config": {"@type": TYPE + "type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": "x-request-id"},
    }
    of_share = {
        "name": "share",
        "typed_config": {
            "@type": TYPE + "extensions.matching.input_matchers.runtime_fraction.v3.RuntimeFraction",
            "runtime_fraction": _NOT_RECORDED,
        },
    }
    skip = {
        "name": "skip",
        "typed_config": {"@type": TYPE + "extensions.filters.common.matcher.action.v3.SkipFilter"},
    }
    matcher = {
        "predicate": {"single_predicate": {"input": request_id, "custom_match": of_share}},
        "on_match": {"action": skip},
    }
    return {
        "name": "recorder",
        "typed_config": {
            "@type": TYPE + "extensions.common.matching.v3.ExtensionWithMatcher",
            "extension_config": shown_to,
            "xds_matcher": {"matcher_list": {"matchers": [matcher]}},
        },
    }


def _shows(told: Mapping[str, str], headers: tuple[str, ...], *, asks: Resource, requests: bool) -> Resource:
    return {
        "name": OBSERVER,
        "typed_config": {
            "@type": TYPE + "extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {
                "envoy_grpc": {"cluster_name": OBSERVER},
                "initial_metadata": [{"key": key, "value": value} for key, value in told.items()],
            },
            "observability_mode": True,
            "failure_mode_allow": True,
            "deferred_close_timeout": "1s",
            "processing_mode": {
                "request_header_mode": "SEND" if requests else "SKIP",
                "request_body_mode": "STREAMED" if requests else "NONE",
                "request_trailer_mode": "SKIP",
                "response_header_mode": "SEND",
                "response_body_mode": "STREAMED",
                "response_trailer_mode": "SKIP",
            },
            **asks,
            "forward_rules": {"allowed_headers": {"patterns": [{"exact": name} for name in headers]}},
        },
    }


_NOT_RECORDED: Resource = {"default_value": {"numerator": 100}, "runtime_key": NOT_RECORDED_PERCENT}
_CODEC: Resource = {
    "name": "envoy.filters.http.upstream_codec",
    "typed_config": {"@type": TYPE + "extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
}
