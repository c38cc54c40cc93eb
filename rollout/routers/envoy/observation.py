"""What the gateway passes to the observer.

The gateway passes both versions' answers to requests of which the other version gets a copy. If the plan says how to
read answers, it passes all answers to users. Both apply only to a share of the requests, which `sampling` draws.

A share of the requests is also copied to stable, so that the observer knows how much stable differs from itself. The
filter that passes answers does not wait, and continues without an observer. Health checks and pings find a hanging
observer; until then, at most `_BUFFER_BYTES` of each connection wait for it.
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
REPEAT = "repeat/"  # before a tag: the cluster of stable for requests that it gets twice
REPEATED_PERCENT = 20

RECORDED = "recorded/"  # before a tag: the cluster of stable for recorded requests
NOT_RECORDED_PERCENT = "kanaria.not_recorded_percent"  # a runtime value: the share of requests that is not recorded

_OF_ANSWERS = (":status", "content-type", "content-encoding")  # the headers that are passed
_MOST_STREAMS = 256  # simultaneous answers to the observer; further answers are not passed
_CONNECTIONS = 4
_BUFFER_BYTES = 8 * 1024 * 1024
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
HTTP_1: Resource = {
    "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http_protocol_options": {}},
}


def is_observed(split: Split, settings: GatewaySettings) -> bool:
    """Whether the observer compares answers. Versions with the model contract compare their own."""
    has_pairs = split.mirror or split.compare_percent > 0
    return settings.has_observer and has_pairs and not split.keeps_contract


def is_watched(split: Split, settings: GatewaySettings) -> bool:
    """Whether the observer gets the answers to a share of the requests."""
    return is_observed(split, settings) or is_read(split, settings)


def is_read(split: Split, settings: GatewaySettings) -> bool:
    """Whether the observer counts what users' answers say."""
    return settings.has_observer and bool(split.answers) and not split.keeps_contract


def takes_feedback(split: Split, settings: GatewaySettings) -> bool:
    """Whether labels go to the observer: the plan says what an answer means, and no version accepts labels itself."""
    declared = {route.path for version in split.versions for route in version.service.routes}
    return is_read(split, settings) and split.answers.has_classes and FEEDBACK_PATH not in declared


def shown(cluster: Resource, told: Mapping[str, str], *, shows_requests: bool = False) -> Resource:
    """The same cluster, with its answers passed to the observer.

    Args:
        told: metadata for the observer.
        shows_requests: whether the bodies of requests are passed too.
    """
    return _with_first(_filter(told, shows_requests=shows_requests), cluster)


def is_shown(cluster: Resource) -> bool:
    """Whether the answers of a cluster are passed to the observer."""
    return any("http_filters" in options for options in cluster.get("typed_extension_protocol_options", {}).values())


def compared(role: str, split: Split) -> dict[str, str]:
    """The observer's metadata of answers that are compared."""
    told = {ROLE: role, COMPARED: f"{split.stable.tag} {split.canary.tag if split.canary else ''}"}
    return told | ({SAMPLED: "yes"} if split.compare_percent else {})


def read(tag: str) -> dict[str, str]:
    """The observer's metadata of answers of `tag` that it counts."""
    return {READ: tag}


def not_recorded() -> Resource:
    """The part of a route's match for requests that are not recorded: all requests, unless a command starts recording.

    The share is an Envoy runtime value, so recording starts and ends without a new configuration, and a restarted
    gateway records nothing. Envoy draws it from a random number modulo a hundred, and the observed share from the same
    number modulo a million, in steps of a hundred (`sampling`): the two draws are independent.
    """
    return {"runtime_fraction": _NOT_RECORDED}


def recorded(cluster: Resource, tag: str) -> Resource:
    """The same cluster, with its requests and answers passed to the observer for recording."""
    return _with_first(_recorder(tag), cluster)


def recordable(cluster: Resource, tag: str) -> Resource:
    """As `recorded`, for a cluster whose requests no route draws: the filter draws a share of them.

    A skipped request costs the gateway a fifteenth more time, so this is only for a few requests.
    """
    return _with_first(_unless_skipped(_recorder(tag)), cluster)


def mirror_policy(split: Split) -> Resource:
    """Copies a share of the requests to stable."""
    share = {"default_value": {"numerator": REPEATED_PERCENT}}
    return {"cluster": REPEAT + split.stable.tag, "runtime_fraction": share}


def own_ids() -> list[Resource]:
    """Headers that give each request and its copies the gateway's own id, because callers may reuse their ids."""
    header = {"key": OWN_REQUEST_HEADER, "value": "%UNIQUE_ID%"}
    return [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]


def observer_cluster(settings: GatewaySettings) -> Resource:
    """The observer's cluster. Answers do not queue for a slow observer: they are not passed."""
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
    """The cluster at which the observer accepts labels."""
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
    """The same cluster, with the filter `one` before its others."""
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
    """Passes requests with their answers, and only the headers that may be kept: no key or cookie leaves Envoy."""
    headers = (":method", ":path", *KEPT_HEADERS, *_OF_ANSWERS)
    told = {ROLE: RECORD, ANSWERED_BY: tag}
    return _shows(told, tuple(dict.fromkeys(headers)), asks={"request_attributes": ["xds.route_name"]}, requests=True)


def _unless_skipped(shown_to: Resource) -> Resource:
    """The filter, applied to the requests that are not skipped. All are skipped, unless the runtime value is set."""
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
