"""A Flagger Canary whose webhooks call the judge, and the Deployment that it releases."""

from urllib.parse import quote

from kanaria.kubernetes.parts import Manifest, disruption_budget, named, parent, pod_monitor, pods
from kanaria.kubernetes.wanted import Wanted

PLACEHOLDER = "THE-TOKEN"  # shorter than any token of a judge
_TIMEOUT = "30s"
# Otherwise each answer that means `wait` would be a chat message, every 15 s.
_USUALLY_WAIT = ("confirm-traffic-increase", "confirm-promotion")


def manifests(wanted: Wanted) -> dict[str, list[Manifest]]:
    """The manifests by file name."""
    return {
        "canary": [_canary(wanted)],
        "deployment": [_deployment(wanted), disruption_budget(wanted)],
        "monitoring": [pod_monitor(wanted, "app")],
    }


def _deployment(wanted: Wanted) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": named(wanted) | {"labels": {"app": wanted.name}},
        "spec": {
            "replicas": wanted.replicas,
            "selector": {"matchLabels": {"app": wanted.name}},
            "template": pods(wanted),
        },
    }


def _canary(wanted: Wanted) -> Manifest:
    profile = {"profile": wanted.profile}
    highest = {"to_percent": str(wanted.steps[-1])}  # Flagger does not say which weight comes next
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": named(wanted),
        "spec": {
            "provider": "gatewayapi:v1",
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": wanted.name},
            "service": {
                "port": wanted.port,
                "gatewayRefs": [parent(each) for each in (wanted.gateway,) if each],
                **({"hosts": list(wanted.hostnames)} if wanted.hostnames else {}),
                "match": [{"uri": {"prefix" if each.is_prefix else "exact": each.path}} for each in wanted.paths],
            },
            "analysis": {
                "interval": "15s",
                "threshold": 10,  # failed checks; the judge fails a release only by `rollback`
                "stepWeights": list(wanted.steps),
                # No hook at confirm-rollout: Flagger sends the checksum of the previous build there, so the judge could
                # not hold the new one, and while the judge is down a build would wait without a trace in any metric.
                "webhooks": [
                    _hook(wanted, "next-weight", "confirm-traffic-increase", "step", profile | highest),
                    _hook(wanted, "promotion", "confirm-promotion", "promote", profile),
                    _hook(wanted, "harm", "rollback", "failed", profile),
                    _hook(wanted, "noted", "event", "event"),
                ],
            },
        },
    }


def _hook(wanted: Wanted, name: str, kind: str, path: str, metadata: dict[str, str] | None = None) -> Manifest:
    """A webhook. Flagger cannot send headers, so the token is in the URL."""
    token = quote(wanted.token or PLACEHOLDER, safe="")
    hook: Manifest = {"name": name, "type": kind, "url": f"{wanted.judge_url}/v1/flagger/{path}?token={token}"}
    muted = {"muteAlert": True} if kind in _USUALLY_WAIT else {}
    return hook | {"timeout": _TIMEOUT} | muted | ({"metadata": metadata} if metadata else {})
