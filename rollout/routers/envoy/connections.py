"""Limits the gateway's client connections, and how long an idle one may stay.

An idle connection may stay long while there is room, but only a second while there is none. So a client that opens all
connections and sends nothing loses them. Envoy 1.40 has no limit per address, and on one machine all clients share one.
"""

from rollout.routers.envoy.api import TYPE, Resource
from rollout.routers.envoy.settings import GatewaySettings

_SHORTER_FROM, SHORTEST_FROM = 0.5, 0.9  # shares of the connections in use
_SHORTEST_IDLE, _SHORTEST_HANDSHAKE, _SHORTEST_FLUSH = "1s", "2s", "5s"
_LOOKED_AT = "0.25s"  # how often Envoy checks
_MOST, _TAKEN = (
    f"envoy.resource_monitors.{name}" for name in ("global_downstream_max_connections", "injected_resource")
)


def overload_manager(settings: GatewaySettings) -> Resource:
    """The overload manager of the bootstrap. `Pressure` keeps the file that it reads up to date."""
    monitors = f"{TYPE}extensions.resource_monitors"
    return {
        "refresh_interval": _LOOKED_AT,
        "resource_monitors": [
            {
                "name": _MOST,
                "typed_config": {
                    "@type": f"{monitors}.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": settings.max_connections,
                },
            },
            {
                "name": _TAKEN,
                "typed_config": {
                    "@type": f"{monitors}.injected_resource.v3.InjectedResourceConfig",
                    "filename": str(settings.pressure_path.absolute()),
                },
            },
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                "triggers": [
                    {
                        "name": _TAKEN,
                        "scaled": {"scaling_threshold": _SHORTER_FROM, "saturation_threshold": SHORTEST_FROM},
                    }
                ],
                "typed_config": {
                    "@type": f"{TYPE}config.overload.v3.ScaleTimersOverloadActionConfig",
                    "timer_scale_factors": [
                        {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": _SHORTEST_IDLE},
                        {"timer": "HTTP_DOWNSTREAM_STREAM_FLUSH", "min_timeout": _SHORTEST_FLUSH},
                        {"timer": "TRANSPORT_SOCKET_CONNECT", "min_timeout": _SHORTEST_HANDSHAKE},
                    ],
                },
            }
        ],
    }
