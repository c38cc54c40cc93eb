"""An Argo Rollout whose weight rises as far as the judge allows, and the analyses that call the judge."""

from itertools import pairwise

from kanaria.kubernetes.parts import (
    HASH,
    Manifest,
    disruption_budget,
    labels,
    named,
    parent,
    pod_monitor,
    pods,
    service,
)
from kanaria.kubernetes.paths import Match
from kanaria.kubernetes.wanted import SECRET, SECRET_KEY, Gateway, Wanted

API = "argoproj.io/v1alpha1"
METRIC = "kanaria"  # the metric's name in every analysis, which alerts use
# The model's name is appended, because models in one namespace may have different profiles.
STEP, WATCH = "kanaria-step", "kanaria-watch"
_INTERVAL = "15s"
# Times 15 s: ten minutes with all the traffic. With a gateway, stable's pods still run then. If the numbers of pods are
# the weights, they have ended, and a rollback starts them again.
_WATCHED = "40"
_UNTIL_THE_END = "1000000"
# An hour without enough requests pauses the rollout for a person. While Prometheus or the judge is down, the weight is
# held and nothing is aborted: Argo Rollouts counts every answer except 2xx as an error, and asks again.
_MOST_INCONCLUSIVE, _MOST_ERRORS = 240, 100_000


def manifests(wanted: Wanted) -> dict[str, list[Manifest]]:
    """The manifests by file name."""
    ways = [service(wanted)] if wanted.gateway is None else _route(wanted, wanted.gateway)
    return {
        "analysis": [_step(wanted), _watch(wanted)],
        "rollout": [_rollout(wanted), disruption_budget(wanted)],
        "network": ways,
        "monitoring": [pod_monitor(wanted, HASH)],
    }


def _rollout(wanted: Wanted) -> Manifest:
    canary: Manifest = {}
    if wanted.gateway is not None:
        route = {"httpRoute": wanted.name, "namespace": wanted.namespace}
        canary = {
            "canaryService": f"{wanted.name}-canary",
            "stableService": f"{wanted.name}-stable",
            "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": route}},
        }
    steps: list[Manifest] = []
    for weight, above in pairwise(wanted.weights):
        steps += [{"setWeight": weight}, {"analysis": _analysis(wanted, STEP, {"to": str(above)})}]
    steps += [{"setWeight": 100}, {"analysis": _analysis(wanted, WATCH, {"count": _WATCHED})}]
    background = _analysis(wanted, WATCH, {"count": _UNTIL_THE_END})
    return {
        "apiVersion": API,
        "kind": "Rollout",
        "metadata": named(wanted),
        "spec": {
            "replicas": wanted.replicas,
            "selector": {"matchLabels": {"app": wanted.name}},
            "template": pods(wanted),
            "strategy": {"canary": canary | {"analysis": background, "steps": steps}},
        },
    }


def _analysis(wanted: Wanted, template: str, more: dict[str, str]) -> Manifest:
    """How a Rollout runs an analysis. Its arguments are fixed when it starts."""
    return {
        "templates": [{"templateName": f"{template}-{wanted.name}"}],
        "args": [
            {"name": "namespace", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "rollout", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "canary", "valueFrom": {"podTemplateHashValue": "Latest"}},
            {"name": "stable", "valueFrom": {"podTemplateHashValue": "Stable"}},
            *({"name": name, "value": value} for name, value in more.items()),
        ],
    }


def _step(wanted: Wanted) -> Manifest:
    """May the weight rise? Passes when the next weight is safe, fails on proven harm, and waits otherwise."""
    metric = {
        "successCondition": 'result.verdict == "pass"',
        "failureCondition": 'result.verdict == "fail"',
        "consecutiveSuccessLimit": 1,
        "inconclusiveLimit": _MOST_INCONCLUSIVE,
    }
    return _template(wanted, STEP, [{"name": "to"}], metric, {"to_percent": "{{args.to}}"})


def _watch(wanted: Wanted) -> Manifest:
    """Does the canary do harm? Runs in the background of all steps, and as a last step with all the traffic."""
    metric = {
        "count": "{{args.count}}",
        "successCondition": 'result.verdict != "fail"',
        "failureCondition": 'result.verdict == "fail"',
    }
    return _template(wanted, WATCH, [{"name": "count", "value": _WATCHED}], metric, {})


def _template(wanted: Wanted, name: str, args: list[Manifest], metric: Manifest, asked: dict[str, str]) -> Manifest:
    names = ("namespace", "rollout", "canary", "stable")
    web = {
        "method": "POST",
        "url": f"{wanted.judge_url}/v1/judge",
        "timeoutSeconds": 30,
        "headers": [{"key": "Authorization", "value": "Bearer {{args.token}}"}],
        "jsonBody": {each: f"{{{{args.{each}}}}}" for each in names} | asked | {"profile": wanted.profile},
        "jsonPath": "{$}",
    }
    token = {"name": "token", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": SECRET_KEY}}}
    return {
        "apiVersion": API,
        "kind": "AnalysisTemplate",
        "metadata": {"name": f"{name}-{wanted.name}", "namespace": wanted.namespace},
        "spec": {
            "args": [*({"name": each} for each in names), *args, token],
            "metrics": [
                {"name": METRIC, "interval": _INTERVAL}
                | metric
                | {"failureLimit": 0, "consecutiveErrorLimit": _MOST_ERRORS, "provider": {"web": web}}
            ],
        },
    }


def _route(wanted: Wanted, gateway: Gateway) -> list[Manifest]:
    """A service for each version, and the route that splits the traffic, whose weights Argo Rollouts changes."""
    weights = ((f"{wanted.name}-stable", 100), (f"{wanted.name}-canary", 0))
    backends = [{"name": name, "port": wanted.port, "weight": weight} for name, weight in weights]
    return [
        service(wanted, "-stable"),
        service(wanted, "-canary"),
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": named(wanted) | {"labels": labels(wanted)},
            "spec": {
                "parentRefs": [parent(gateway)],
                **({"hostnames": list(wanted.hostnames)} if wanted.hostnames else {}),
                "rules": [{"matches": list(map(_match, wanted.paths)), "backendRefs": backends}],
            },
        },
    ]


def _match(taken: Match) -> Manifest:
    return {"path": {"type": "PathPrefix" if taken.is_prefix else "Exact", "value": taken.path}}
