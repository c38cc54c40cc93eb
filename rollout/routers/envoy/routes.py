"""Converts a traffic split to Envoy's route table and back: dictionaries in, dictionaries out.

There are two tables. The table of the model contract passes POST /predict and the paths that belong to it, and nothing
else. The table of any other service passes every request except those that a version keeps to itself.

A route whose requests are evidence has metadata: `route` is the name under which the access log counts them, one of the
paths that the services declare; `kind` says whether its answers come as a whole or may be streamed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from contract.http import (
    API_KEY_HEADER,
    CALLER_HEADER,
    FEEDBACK_PATH,
    HEALTH_PATH,
    LIVE_PATH,
    PREDICT_PATH,
    READY_PATH,
    REQUEST_ID_HEADER,
    VERSION_HEADER,
)
from contract.prediction_log import OWN_REQUESTS
from rollout.fleet import Route
from rollout.routers.envoy.api import TYPE, Resource
from rollout.routers.envoy.compared import compare_percent_of, copy_policies, marked, weights
from rollout.routers.envoy.keys import FOR_FEEDBACK, OPEN_TO_ALL, labeller_headers, labeller_rules
from rollout.routers.envoy.observation import (
    FEEDBACK,
    OBSERVER,
    RECORDED,
    REPEAT,
    is_observed,
    is_shown,
    is_watched,
    mirror_policy,
    not_recorded,
    own_ids,
    takes_feedback,
)
from rollout.routers.envoy.resources import (
    FALLBACK,
    SHADOW,
    choice_name,
    fallback_of_stable,
    headers_with,
    is_recordable,
)
from rollout.routers.envoy.sampling import OBSERVED, drawn
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import ObservedSplit, Split
from rollout.signals.segments import ABSENT, Segments

ROUTE_CONFIG = "kanaria"
CORS_FILTER = "cors"
BODY_FILTER = "body_limit"
RATE_FILTER = "rate_limit"
READY_FILTER = "ready"
HEADERS_FILTER = "user"  # the name in gateways of earlier versions, which keep running after an upgrade
USER_METADATA = "kanaria.user"  # where the access log finds the user of a sticky request
SEGMENT_METADATA = "kanaria.segment"  # and its segment

WHOLE, STREAMED = "whole", "streamed"  # kinds of answers
ALONE = "alone"  # how long a single process has a request that was read first; absent if the body flows through
MOST_ROUTES = 50  # routes counted one by one: the number of series must stay bounded
OTHER = Route("other", is_streamed=True)  # all other paths: BentoML's pages, applications that declare no paths

_UNESCAPED = "/!$&'()*+,;=:@%"  # besides letters, digits and -._~: RFC 3986, `pchar`; escaped characters stay escaped
_READ_FIRST_BYTES = 64 * 1024  # larger bodies of known length flow through
_LATER_S = 5.0  # extra time, so that a service's own timeout answer gets through
_LONGEST_WAIT_S = 24 * 3600.0  # the longest wait for one answer
_LONGEST_SILENCE_S = 300.0  # in a stream or a WebSocket, unless the service's own limit is longer
# Probes need no key and are exempt from the request limit: a busy gateway must not look like a dead one.
_FOR_PROBES = OPEN_TO_ALL | {RATE_FILTER: {"@type": TYPE + "config.route.v3.FilterConfig", "disabled": True}}
_BODY_LIMIT = {"@type": TYPE + "extensions.filters.http.buffer.v3.BufferPerRoute"}
_UNMEASURED = _BODY_LIMIT | {"disabled": True}
_OF_OUR_OWN = {"name": REQUEST_ID_HEADER, "string_match": {"prefix": OWN_REQUESTS}}
_OK: Resource = {"@type": TYPE + "extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy"}
_OK |= {"status_code": 200, "body": {"inline_string": "ok\n"}}
_ALIVE = {
    "match": {"path": LIVE_PATH},
    "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}},
    "typed_per_filter_config": _FOR_PROBES,
}


def _is_ok(answer_class: str) -> Resource:
    """A rule that turns answers of a class, such as `4xx`, into 200."""
    status = {
        "name": "status",
        "typed_config": {"@type": TYPE + "type.matcher.v3.HttpResponseStatusCodeClassMatchInput"},
    }
    return {
        "predicate": {"single_predicate": {"input": status, "value_match": {"exact": answer_class}}},
        "on_match": {"action": {"name": "ok", "typed_config": _OK}},
    }


# Only a process that Envoy's health check found ready is asked. Its answer says no more: it may not even have the path.
_ANSWERS_AT_ALL = {
    READY_FILTER: {
        "@type": TYPE + "extensions.filters.http.custom_response.v3.CustomResponse",
        "custom_response_matcher": {"matcher_list": {"matchers": [_is_ok("3xx"), _is_ok("4xx")]}},
    }
}


def routes_for(split: Split | None, settings: GatewaySettings) -> Resource:
    """The route table of `split`; None: no version exists yet, and every request is answered 503."""
    of_contract = split is None or split.keeps_contract
    host: Resource = {"name": "gateway", "domains": ["*"]}
    if split is None or split.keeps_contract:
        host |= {"routes": _of_contract(split, settings)}
    else:
        host |= {
            "routes": [*_of_services(split, settings)],
            "retry_policy": _retries(split) | {"per_try_idle_timeout": f"{_limit_s(split):g}s"},
            "response_headers_to_add": [
                {"header": {"key": VERSION_HEADER, "value": '%UPSTREAM_METADATA(["kanaria", "version"])%'}}
            ],
        }
    return {
        "@type": TYPE + "config.route.v3.RouteConfiguration",
        "name": ROUTE_CONFIG,
        "virtual_hosts": [host | _cross_origin(settings, "GET, POST" if of_contract else "*")],
        **headers_with(_secret_of(split)),
    }


def _secret_of(split: Split | None) -> str:
    """The secret that the versions require at their ports. One may answer in another's place, so all get it."""
    return next((version.secret for version in split.versions if version.secret), "") if split else ""


def split_of(routes: Mapping[str, Any]) -> ObservedSplit | None:
    """Read a split back from a route table; None if it serves no version.

    Args:
        routes: a RouteConfiguration as Envoy's admin shows it: without zeros and defaults.
    """
    shared = [
        route["route"]
        for route in routes["virtual_hosts"][0]["routes"]
        if "weighted_clusters" in route.get("route", ())
    ]
    if not shared:
        return None
    stable, *canary = shared[0]["weighted_clusters"]["clusters"]  # of the observed route, if there is one
    total = stable.get("weight", 0) + sum(one.get("weight", 0) for one in canary)
    policies = [policy for action in shared for policy in action.get("request_mirror_policies", ())]
    stable_tag, _, fallback = stable["name"].removeprefix(OBSERVED).partition(FALLBACK)
    return ObservedSplit(
        stable=stable_tag,
        canary=canary[0]["name"].removeprefix(OBSERVED).partition(FALLBACK)[0] if canary else None,
        canary_percent=round(100 * canary[0].get("weight", 0) / total, 2) if canary else 0,
        mirror=any("cluster" in policy for policy in policies),
        fallback=fallback if fallback and not canary else None,
        compare_percent=compare_percent_of(policies),
    )


def clusters_used(routes: Mapping[str, Any], clusters: Mapping[str, Resource]) -> dict[str, Resource]:
    """Those of `clusters` that a request under `routes` may still need; choices include their members."""
    split = split_of(routes)
    if split is None:
        return {}
    tags = {split.stable, split.canary, split.fallback}
    used = {
        name: cluster for name, cluster in clusters.items() if tags.issuperset(_without_place(name).split(FALLBACK))
    }
    has_readers = any(is_shown(each) for name, each in used.items() if not name.startswith((SHADOW, REPEAT)))
    is_needed = OBSERVER in clusters and (split.mirror or has_readers)
    own = {name: clusters[name] for name in (OBSERVER, FEEDBACK) if name in clusters}
    return used | (own if is_needed else {})


def _without_place(name: str) -> str:
    for place in (OBSERVED, RECORDED, SHADOW, REPEAT):
        name = name.removeprefix(place)
    return name


def _of_contract(split: Split | None, settings: GatewaySettings) -> list[Resource]:
    predict = {"match": {"path": PREDICT_PATH}, **_predict(split, settings)}
    if split is not None:
        predict["typed_per_filter_config"] = _told_apart(split)
    alone_s = settings.request_timeout_s
    if split is not None and _has_another(split):
        alone_s = _try_timeout_s(split, settings)
    only_post = {"headers": [{"name": ":method", "string_match": {"exact": "POST"}}]}
    return [
        _ALIVE,
        {"match": {"prefix": "/", "headers": [_OF_OUR_OWN]}, "direct_response": {"status": 422}},
        predict | {"match": predict["match"] | only_post, **_counted(Route(PREDICT_PATH), alone_s=alone_s)},
        predict,
        {"match": {"path": FEEDBACK_PATH}, **_to_stable(split, settings), **_for_labels()},
        {"match": {"path": "/docs.json"}, **_to_stable(split, settings)},
        {"match": {"path": READY_PATH}, **_to_stable(split, settings), "typed_per_filter_config": _FOR_PROBES},
        {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
    ]


def _of_services(split: Split, settings: GatewaySettings) -> Iterator[Resource]:
    """The routes to everything that the versions' services answer; the split chooses the version."""
    yield _ALIVE
    for probe in (READY_PATH, HEALTH_PATH):
        ready_path = split.stable.service.readiness.path
        to_ready = {"cluster": choice_name(split.stable, fallback_of_stable(split)), "prefix_rewrite": ready_path}
        yield {"match": {"path": probe}, "route": to_ready, "typed_per_filter_config": _FOR_PROBES | _ANSWERS_AT_ALL}
    for path in dict.fromkeys(path for version in split.versions for path in version.service.kept_back):
        yield {"match": {"path_separated_prefix": path}, "direct_response": {"status": 404}}
    too_large = {"name": "content-length", "range_match": {"start": settings.max_upload_bytes + 1, "end": 2**63 - 1}}
    yield {
        "match": {"prefix": "/", "headers": [too_large]},
        "direct_response": {"status": 413},
        "typed_per_filter_config": {BODY_FILTER: _BODY_LIMIT | {"disabled": True}},  # otherwise it would be read first
    }
    declared = _declared(split)
    if takes_feedback(split, settings):
        timeout = f"{settings.request_timeout_s}s"
        to_observer = {"cluster": FEEDBACK, "timeout": timeout}
        yield {"match": {"path": FEEDBACK_PATH}, "route": to_observer, **_for_labels()}
    elif FEEDBACK_PATH not in [route.path for route in declared]:  # otherwise a path with a placeholder might match it
        yield from _passed({"path": FEEDBACK_PATH}, OTHER, split, settings)
    for route in declared:
        yield from _passed(_match(route), route, split, settings)
    yield from _passed({"prefix": "/"}, OTHER, split, settings)


def _declared(split: Split) -> list[Route]:
    """The routes of all versions, fixed paths before those with a placeholder. If too many, the first versions' win.

    A route counts as streamed if any version streams it.
    """
    routes: dict[str, Route] = {}
    for version in split.versions:
        for route in version.service.routes:
            known = routes.get(route.path, route)
            is_streamed, may_stream = known.is_streamed or route.is_streamed, known.may_stream or route.may_stream
            routes[route.path] = Route(route.path, is_streamed, may_stream)
    return sorted(list(routes.values())[:MOST_ROUTES], key=lambda route: "{" in route.path)


def _match(route: Route) -> Resource:
    """A match for the path in the form of requests: with non-ASCII characters escaped."""
    if "{" not in route.path:
        return {"path": quote(route.path, safe=_UNESCAPED)}
    parts = re.split(r"(\{[^}]*\})", route.path)
    whole = "".join(_any(part) if part.startswith("{") else re.escape(quote(part, safe=_UNESCAPED)) for part in parts)
    return {"safe_regex": {"regex": whole}}


def _any(placeholder: str) -> str:
    return ".*" if placeholder.endswith(":path}") else "[^/]+"


def _passed(match: Resource, route: Route, split: Split, settings: GatewaySettings) -> Iterator[Resource]:
    """Envoy's routes for one route of the services.

    A large body of known length has already been compared with the limit, and flows through. Other bodies are read
    first: to measure them, or because it costs nothing and tells a slow client from a slow version.
    """
    action = _passing(route, split, settings)
    takes_labels = match == {"path": FEEDBACK_PATH}
    filters = {**(FOR_FEEDBACK if takes_labels else {}), **_told_apart(split, labeller_rules() if takes_labels else ())}
    told: Resource = {"request_headers_to_add": labeller_headers()} if takes_labels else {}
    if route.is_streamed:
        upgrade = {"name": "upgrade", "string_match": {"exact": "websocket", "ignore_case": True}}
        yield {
            "match": match | {"headers": [upgrade]},
            "route": action | {"upgrade_configs": [{"upgrade_type": "websocket"}]},
            "typed_per_filter_config": {BODY_FILTER: _UNMEASURED, **filters},
            **told,
            **_counted(route),
        }
    elif is_watched(split, settings):
        for each in _by_length(match | drawn(), route, _passing(route, split, settings, OBSERVED), settings):
            own = {"request_headers_to_add": [*own_ids(), *told.get("request_headers_to_add", ())]}
            yield each | own | {"typed_per_filter_config": each["typed_per_filter_config"] | filters}
    others = [(match, action)]
    if is_recordable(split, settings) and not route.is_streamed:
        others = [(match | not_recorded(), action), (match, _passing(route, split, settings, RECORDED))]
    for of_those, passing in others:
        for each in _by_length(of_those, route, passing, settings):
            yield each | told | {"typed_per_filter_config": each["typed_per_filter_config"] | filters}


def _passing(route: Route, split: Split, settings: GatewaySettings, place: str = "") -> Resource:
    """The action for a request.

    Args:
        place: `OBSERVED` or `RECORDED`: the answers are passed to the observer for that purpose.
    """
    action = _shared(split, settings, is_copied=not route.is_streamed, place=place)
    limit_s = _limit_s(split)
    # A streamed answer may last without limit: `per_try_idle_timeout` limits the wait for each part.
    action["timeout"] = f"{0 if route.is_streamed or route.may_stream else limit_s:g}s"
    action["idle_timeout"] = f"{max(_LONGEST_SILENCE_S, limit_s):g}s"
    return action


def _by_length(match: Resource, route: Route, action: Resource, settings: GatewaySettings) -> Iterator[Resource]:
    """Two entries: whether the body is read before a version gets the request depends on its length.

    No more than two, because Envoy checks the entries of every route before the matching one.
    """
    measured = _BODY_LIMIT | {"buffer": {"max_request_bytes": settings.max_upload_bytes}}
    named = {} if route.is_streamed else {"name": route.path}  # it tells the observer that there is a copy
    flows, is_read = _counted(route) | named, _counted(route, alone_s=_LONGEST_WAIT_S) | named
    is_large = {"name": "content-length", "range_match": {"start": _READ_FIRST_BYTES + 1, "end": 2**63 - 1}}
    of_large = match | {"headers": [is_large]}
    yield {"match": of_large, "route": action, "typed_per_filter_config": {BODY_FILTER: _UNMEASURED}, **flows}
    yield {"match": match, "route": action, "typed_per_filter_config": {BODY_FILTER: measured}, **is_read}


def _limit_s(split: Split) -> float:
    return max(version.service.timeout_s for version in split.versions) + _LATER_S


def _counted(route: Route, *, alone_s: float | None = None) -> Resource:
    """Metadata that makes the requests of a route evidence.

    Args:
        alone_s: see `ALONE`, seconds; None: the bodies flow through.
    """
    facts = {"route": route.path, "kind": STREAMED if route.is_streamed else WHOLE}
    if alone_s is not None:
        facts[ALONE] = f"{alone_s:g}s"
    return {"metadata": {"filter_metadata": {"kanaria": facts}}}


def _cross_origin(settings: GatewaySettings, methods: str) -> Resource:
    """Which other sites' pages may read the answers. They send a key in a header, never a cookie."""
    if not settings.cors_origins:
        return {}
    matchers = [
        {"safe_regex": {"regex": ".*"}} if origin == "*" else {"exact": origin} for origin in settings.cors_origins
    ]
    policy = {
        "@type": TYPE + "extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": matchers,
        "allow_methods": methods,
        "allow_headers": "*",
        "expose_headers": f"{REQUEST_ID_HEADER}, {VERSION_HEADER}, retry-after",
        "max_age": "600",
        "forward_not_matching_preflights": False,
    }
    return {"typed_per_filter_config": {CORS_FILTER: policy}}


def _to_stable(split: Split | None, settings: GatewaySettings) -> Resource:
    if split is None:
        return {"direct_response": {"status": 503}}
    stable = choice_name(split.stable, fallback_of_stable(split))
    timeout = f"{settings.request_timeout_s}s"
    return {"route": {"timeout": timeout, "cluster": stable, "retry_policy": _retries(split)}}


def _predict(split: Split | None, settings: GatewaySettings) -> Resource:
    if split is None:
        return {"direct_response": {"status": 503}}
    timeout = {"timeout": f"{settings.request_timeout_s}s"}
    return {"route": timeout | _predict_retries(split, settings) | _shared(split, settings, is_copied=True)}


def _shared(split: Split, settings: GatewaySettings, *, is_copied: bool, place: str = "") -> Resource:
    """The part of an action that gives each version its share. `place`: see `_passing`."""
    is_any_drawn = split.compare_percent > 0 or is_watched(split, settings)
    to_stable, to_canary = weights(split, is_drawn=is_any_drawn)
    is_drawn = place == OBSERVED
    observed = OBSERVED if is_drawn else ""
    stable = place + choice_name(split.stable, fallback_of_stable(split))
    weighted: list[Resource] = [{"name": stable, "weight": to_stable}]
    clusters: Resource = {"clusters": weighted}
    action: Resource = {"weighted_clusters": clusters}
    if split.canary is not None:
        # Stable first: Envoy compares the hash of a sticky caller with the running sum of the weights. So the canary's
        # share grows downwards from 100, and a rising weight never moves a caller away from the canary.
        of_canary = "" if split.mirror else observed  # in the shadow step it gets only copies
        weighted.append({"name": of_canary + choice_name(split.canary, split.stable), "weight": to_canary})
        is_seen = is_observed(split, settings)
        if split.mirror and is_copied:
            action["request_mirror_policies"] = [{"cluster": observed + SHADOW + split.canary.tag}]
            if is_drawn:
                action["request_mirror_policies"].append(mirror_policy(split))
        if split.compare_percent and is_copied and is_drawn is is_seen:  # make no copies that are not compared
            clusters["clusters"] = marked(weighted, split, is_observed=is_seen)
            action["request_mirror_policies"] = copy_policies(split, is_observed=is_seen)
    if split.sticky is not None:
        clusters["use_hash_policy"] = True
        action["hash_policy"] = [{"header": {"header_name": _told_by(split.sticky, settings)}}]
    return action


def _told_by(sticky: str, settings: GatewaySettings) -> str:
    """The header that chooses a version. The gateway chooses before it knows the key's name, so by the key itself."""
    return API_KEY_HEADER if sticky == CALLER_HEADER and settings.asks_for_keys else sticky


def _for_labels() -> Resource:
    """Settings of a route that accepts labels: which keys open it, and which names it passes on."""
    filters = FOR_FEEDBACK | _metadata(labeller_rules())
    return {"typed_per_filter_config": filters, "request_headers_to_add": labeller_headers()}


def _told_apart(split: Split, more: Sequence[Resource] = ()) -> Resource:
    """Stores the sender of a request, if callers are sticky, and its segment for the access log."""
    rules = [*more]
    if split.sticky is not None:
        of_user = {"metadata_namespace": USER_METADATA}
        # Every request has a method: this key marks sticky callers even if the caller has no name.
        rules.append({"header": ":method", "on_header_present": of_user | {"key": "is_sticky"}})
        rules.append({"header": split.sticky, "on_header_present": of_user | {"key": "id"}})
    if split.segments is not None:
        rules += _segment_rules(split.segments)
    return _metadata(rules) if rules else {}


def _metadata(rules: Sequence[Resource]) -> Resource:
    kind = TYPE + "extensions.filters.http.header_to_metadata.v3.Config"
    return {HEADERS_FILTER: {"@type": kind, "request_rules": rules}}


def _segment_rules(segments: Segments) -> Iterator[Resource]:
    """Rules that store the segment as `name`, and a value that is not a segment yet as `new`.

    The segment of all other values has no name. A header that occurs several times has its values joined with commas,
    which is not the name of a segment.
    """
    of_segment = {"metadata_namespace": SEGMENT_METADATA}
    yield {"header": ":method", "on_header_present": of_segment | {"key": "is_counted"}}
    names = "|".join(map(re.escape, segments.names))
    present = of_segment | {"key": "name"}
    # A value that does not match passes unchanged, so this pattern matches everything, even bytes that are not UTF-8.
    yield {
        "header": segments.header,
        "on_header_present": present | _rewritten(f"^(?:({names})|\\C*)$" if names else r"^()\C*$", r"\1"),
        "on_header_missing": present | {"value": ABSENT},
    }
    if segments.is_open:
        new = of_segment | {"key": "new"}
        yield {
            "header": segments.header,
            "on_header_present": new | (_rewritten(f"^(?:{names})$", "") if names else {}),
        }


def _rewritten(pattern: str, substitution: str) -> Resource:
    return {"regex_value_rewrite": {"pattern": {"regex": pattern}, "substitution": substitution}}


def _predict_retries(split: Split, settings: GatewaySettings) -> Resource:
    """Retries that also send a long-waiting prediction to another process.

    The first try continues, and the first answer counts. So a slow but living version loses no request.
    """
    retries = _retries(split)
    if not _has_another(split):
        return {"retry_policy": retries}
    retries["per_try_timeout"] = f"{_try_timeout_s(split, settings):g}s"
    return {"retry_policy": retries, "hedge_policy": {"hedge_on_per_try_timeout": True}}


def _try_timeout_s(split: Split, settings: GatewaySettings) -> float:
    """The time limit of one try: all tries get the same time."""
    return min(settings.try_timeout_s, settings.request_timeout_s / (1 + _most_retries(split)))


def _has_another(split: Split) -> bool:
    """Whether a process other than the first one tried may answer."""
    return fallback_of_stable(split) is not None or _is_replicated(split)


def _most_retries(split: Split) -> int:
    return 2 if _is_replicated(split) else 1


def _is_replicated(split: Split) -> bool:
    return any(len(version.backends) > 1 for version in (split.stable, split.canary) if version is not None)


def _retries(split: Split) -> Resource:
    """Retries of a request that no process answered: once in its version if that has several processes, then fallback.

    A request may have had an effect before its process died. Under the contract, a prediction may be computed twice and
    a repeated label counts once. Nothing is known about other services, so only a request that reached no process is
    sent again. An answer of the application is never retried, whatever its status.
    """
    retries = _most_retries(split)
    lost = "reset" if split.keeps_contract else "reset-before-request"
    return {
        "retry_on": f"connect-failure,refused-stream,{lost}",
        "num_retries": retries,
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": TYPE + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": retries,  # the last try goes to the fallback
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
        "host_selection_retry_max_attempts": 5,  # bounded: a version with one process has no other
    }
