"""The messages of Envoy's API, as JSON: https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api."""

from typing import Any

TYPE = "type.googleapis.com/envoy."

Resource = dict[str, Any]  # one message
