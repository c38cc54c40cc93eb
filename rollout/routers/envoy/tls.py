"""The gateway's certificate. Envoy watches its file, so a renewed certificate needs no restart."""

import datetime as dt
import json
import secrets

import httpx

from contract.files import write_whole
from contract.tls import Validity
from rollout.routers.envoy import admin
from rollout.routers.envoy.api import TYPE, Resource
from rollout.routers.envoy.settings import GatewaySettings

_NAME = "gateway"
_TLS = TYPE + "extensions.transport_sockets.tls.v3."


def write_certificate(settings: GatewaySettings, *, chain: str, key: str) -> None:
    """Replace the certificate and its key, both PEM. A running gateway uses them for new clients. Raises OSError."""
    own = {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
    secret = {"@type": f"{_TLS}Secret", "name": _NAME, "tls_certificate": own}
    content = {"version_info": secrets.token_hex(8), "resources": [secret]}
    write_whole(settings.certificate_path, json.dumps(content, indent=1), mode=0o600)


def shown_by_gateway(settings: GatewaySettings, *, timeout_s: float = 1.0) -> Validity | None:
    """The certificate that new clients get; None: the gateway names none, or does not answer."""
    try:
        answer = admin.client(settings, timeout_s=timeout_s).get("/certs").raise_for_status().json()
        own = answer["certificates"][0]["cert_chain"][0]
        return Validity(int(own["serial_number"], 16), _time(own["valid_from"]), _time(own["expiration_time"]))
    except (httpx.HTTPError, ValueError, LookupError):
        return None


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def transport_socket(settings: GatewaySettings) -> Resource:
    """The TLS part of a filter chain; empty if the gateway speaks plain HTTP."""
    if not settings.has_tls:
        return {}
    watched = {
        "path_config_source": {"path": str(settings.certificate_path.absolute())},
        "resource_api_version": "V3",
    }
    return {
        "transport_socket_connect_timeout": "10s",
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TLS}DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "tls_certificate_sds_secret_configs": [{"name": _NAME, "sds_config": watched}],
                },
            },
        },
    }
