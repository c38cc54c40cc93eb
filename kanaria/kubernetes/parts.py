"""Manifests for both Argo Rollouts and Flagger: a model's pods, its services and its PodMonitor."""

from typing import Any

from contract.http import LIVE_PATH, READY_PATH
from kanaria.kubernetes.wanted import Gateway, Wanted

Manifest = dict[str, Any]

HASH = "rollouts-pod-template-hash"  # the label by which Argo Rollouts tells versions apart
PORT = "http"
_SCRAPE = "5s"
_USER = 1034  # in every image of `bentoml containerize`
_DRAIN_S = 5  # until the data plane knows that a pod ends


def labels(wanted: Wanted) -> dict[str, str]:
    """The labels of all pods. Flagger changes `app` for its primary; `model` stays."""
    return {"app": wanted.name, "model": wanted.name}


def named(wanted: Wanted, suffix: str = "") -> dict[str, str]:
    """The metadata of an object."""
    return {"name": f"{wanted.name}{suffix}", "namespace": wanted.namespace}


def pods(wanted: Wanted) -> Manifest:
    """The pod template: no privileges, a read-only root, and time to finish requests."""
    return {
        "metadata": {"labels": labels(wanted)},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(wanted)],
            "volumes": [
                {"name": name, "emptyDir": {"sizeLimit": most}} for name, most in (("tmp", "2Gi"), ("data", "4Gi"))
            ],
        },
    }


def _container(wanted: Wanted) -> Manifest:
    return {
        "name": "model",
        "image": wanted.image,
        "env": [
            {"name": "BENTOML_PORT", "value": str(wanted.port)},
            {"name": "BENTOML_HOME", "value": "/tmp/bentoml"},  # noqa: S108 - in the container, where counters end with it
        ],
        "ports": [{"name": PORT, "containerPort": wanted.port}],
        "startupProbe": _probe(READY_PATH) | {"periodSeconds": 2, "failureThreshold": 90},
        "readinessProbe": _probe(READY_PATH) | {"periodSeconds": 5},
        "livenessProbe": _probe(LIVE_PATH) | {"periodSeconds": 10, "timeoutSeconds": 5},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_DRAIN_S)]}}},
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "data", "mountPath": "/data"}],  # noqa: S108 - as above
    }


def _probe(path: str) -> Manifest:
    return {"httpGet": {"path": path, "port": PORT}}


def service(wanted: Wanted, suffix: str = "") -> Manifest:
    """A Service in front of the model's pods. Argo Rollouts adds a version's hash to the stable and canary ones."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": named(wanted, suffix),
        "spec": {
            "selector": {"app": wanted.name},
            "ports": [{"name": PORT, "port": wanted.port, "targetPort": PORT}],
        },
    }


def parent(gateway: Gateway) -> dict[str, str]:
    """The reference of a route to its gateway."""
    return {"name": gateway.name, "namespace": gateway.namespace}


def pod_monitor(wanted: Wanted, version_label: str) -> Manifest:
    """A PodMonitor: Prometheus reads the pods often, with the label that tells versions apart.

    It does not honour the pods' own labels: otherwise a canary's page could claim to be a pod of stable.
    """
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": named(wanted),
        "spec": {
            "selector": {"matchLabels": {"model": wanted.name}},
            "podTargetLabels": [version_label],
            "podMetricsEndpoints": [{"port": PORT, "interval": _SCRAPE}],
        },
    }


def disruption_budget(wanted: Wanted) -> Manifest:
    """At most one pod of the model may be down at a time, for example when a node is drained."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": named(wanted),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"model": wanted.name}}},
    }
