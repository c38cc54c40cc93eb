"""The keys of callers: one filter per scope knows the keys that open it, and tells versions the name of the key.

Envoy reads the keys again when their files change. Envoy compares plain keys, so the files hold them unhashed, readable
only by their owner. Each request passes one filter: a second filter for permissions cost 3 % of the gateway's time.
"""

import json
import secrets
import time

import httpx

from contract.files import write_whole
from contract.http import API_KEY_HEADER, CALLER_HEADER, LABELLER_HEADER
from rollout.routers.envoy import admin
from rollout.routers.envoy.api import TYPE, Resource
from rollout.routers.envoy.settings import SCOPES, ApiKey, GatewaySettings, Scope

_FILTERS: dict[Scope, str] = {scope: f"{scope}_key" for scope in SCOPES}
_KEY_AUTH = TYPE + "extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
_OF_ROUTE = TYPE + "config.route.v3.FilterConfig"
_VERSIONS = r"^extension_config_discovery\.http_filter\.(.+)\.version_text$"
_POLL_S = 0.01
_AND = "/"  # separates two names of keys, which do not contain it
_NAMESPACE, _OF, _BY = "kanaria.labels", "of", "by"  # metadata of a request with labels


def write_keys(settings: GatewaySettings) -> dict[str, str]:
    """Replace the keys with those of `settings`. A running gateway uses them at once; see `are_in_force`.

    Returns: the version of each filter's file, by its name. Raises: OSError.
    """
    written = {}
    for scope, name in _FILTERS.items():
        credentials = [
            {"key": key.secret, "client": _told(key, scope)} for key in settings.api_keys if scope in key.scopes
        ]
        known = {
            "@type": _KEY_AUTH,
            "credentials": credentials,
            "key_sources": [{"header": API_KEY_HEADER}],
            "forwarding": {"header": CALLER_HEADER, "hide_credentials": True},
        }
        resource = {"@type": TYPE + "config.core.v3.TypedExtensionConfig", "name": name, "typed_config": known}
        written[name] = secrets.token_hex(8)  # not a hash of the keys, which would help an attacker to guess them
        content = json.dumps({"version_info": written[name], "resources": [resource]}, indent=1)
        write_whole(settings.filter_path(name), content, mode=0o600)
    return written


def written_keys(settings: GatewaySettings) -> tuple[tuple[str, str], ...]:
    """What `write_keys` last wrote: each key, with the name that versions get.

    Raises: OSError; ValueError, LookupError or TypeError for a damaged file.
    """
    found = []
    for name in _FILTERS.values():
        for resource in json.loads(settings.filter_path(name).read_bytes())["resources"]:
            found += [(one["key"], one["client"].split(_AND)[0]) for one in resource["typed_config"]["credentials"]]
    return tuple(found)


def forget_keys(settings: GatewaySettings) -> None:
    """Remove the files of `write_keys`, for a gateway that requires no key. Raises OSError."""
    for name in _FILTERS.values():
        settings.filter_path(name).unlink(missing_ok=True)


def takes_keys(settings: GatewaySettings) -> bool:
    """Whether the gateway was started with filters that `write_keys` fills."""
    return all(settings.filter_path(name).exists() for name in _FILTERS.values())


def are_in_force(settings: GatewaySettings, written: dict[str, str], *, wait_s: float) -> bool:
    """Whether the running gateway uses the keys that `write_keys` wrote. Waits at most `wait_s` seconds for that."""
    client = admin.client(settings, timeout_s=wait_s)
    until_s = time.monotonic() + wait_s
    while time.monotonic() < until_s:
        try:
            answer = client.get("/stats", params={"format": "json", "filter": _VERSIONS}).raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return False
        found = {stat["name"].split(".")[-2]: stat["value"] for stat in answer["stats"] if "name" in stat}
        if found == written:
            return True
        time.sleep(_POLL_S)
    return False


def key_filters(settings: GatewaySettings) -> list[Resource]:
    """The filters. A route uses the one for predictions, unless it overrides that."""
    return [
        {
            "name": name,
            "disabled": scope != "predictions",
            "config_discovery": {
                "config_source": {
                    "path_config_source": {"path": str(settings.filter_path(name).absolute())},
                    "resource_api_version": "V3",
                },
                "type_urls": [_KEY_AUTH],
            },
        }
        for scope, name in _FILTERS.items()
    ]


def _of_route(opened_by: Scope | None) -> Resource:
    on: Resource = {"config": {}}
    off: Resource = {"disabled": True}
    return {name: {"@type": _OF_ROUTE} | (on if scope == opened_by else off) for scope, name in _FILTERS.items()}


def _told(key: ApiKey, scope: Scope) -> str:
    """The name of the caller whose answers a key opens; at /feedback also the key's own name, if it differs."""
    if scope != "feedback" or key.labels in (None, key.name):
        return key.name
    return f"{key.labels}{_AND}{key.name}"


def labeller_rules() -> list[Resource]:
    """Rules that split the two names again, for the filter that copies headers into metadata."""
    parts = {_OF: f"^([^{_AND}]*)\\C*$", _BY: f"^(?:[^{_AND}]*{_AND})?(\\C*)$"}
    return [
        {
            "header": CALLER_HEADER,
            "on_header_present": {
                "metadata_namespace": _NAMESPACE,
                "key": part,
                "regex_value_rewrite": {"pattern": {"regex": pattern}, "substitution": r"\1"},
            },
        }
        for part, pattern in parts.items()
    ]


def labeller_headers() -> list[Resource]:
    """The headers with both names for the receiver of labels; none if the gateway requires no key."""
    return [
        {
            "header": {"key": header, "value": f"%DYNAMIC_METADATA({_NAMESPACE}:{part})%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
        for header, part in ((CALLER_HEADER, _OF), (LABELLER_HEADER, _BY))
    ]


# A route's settings of the filters. Gateways started by an earlier version have one filter, with another name.
OPEN_TO_ALL = _of_route(None) | {"api_key": {"@type": _OF_ROUTE, "disabled": True}}
FOR_FEEDBACK = _of_route("feedback")
