"""Stand-ins for the loops of Argo Rollouts 1.9 and Flagger 1.44, as far as they ask a judge. They never wait.

How each treats an answer was measured on the engines' own code; the manifests are the project's own.
"""

import atexit
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

_HTTP = httpx.Client(trust_env=False)  # one for all: each client makes its own TLS context, which is slow
atexit.register(_HTTP.close)

Phase = Literal["Running", "Successful", "Failed", "Error", "Inconclusive"]


class ProviderCrashed(Exception):
    """Argo's controller ends: its provider cannot read `null`."""


@dataclass
class AnalysisRun:
    """One run of a metric with the `web` provider."""

    metric: Mapping[str, Any]
    args: Mapping[str, str]
    base_url: str  # replaces the one in the manifest
    phase: Phase = "Running"
    errors_in_a_row: int = 0
    inconclusive: int = 0
    successes_in_a_row: int = 0
    measurements: list[Any] = field(default_factory=list)
    misread: list[str] = field(default_factory=list)  # answers with 200 that are not JSON and count as successes

    def measure(self) -> Phase:
        """Ask once, and treat the answer as Argo Rollouts does."""
        answer = self._ask()
        if answer is None:
            self.errors_in_a_row += 1
            if self.errors_in_a_row > self.metric.get("consecutiveErrorLimit", 4):
                self.phase = "Error"  # which aborts the rollout
            return self.phase
        self.errors_in_a_row = 0
        self.measurements = [*self.measurements[-9:], answer]
        outcome = self._outcome(answer)
        self.successes_in_a_row = self.successes_in_a_row + 1 if outcome == "Successful" else 0
        if outcome == "Failed" and self.metric.get("failureLimit", 0) == 0:
            self.phase = "Failed"
        elif outcome == "Inconclusive":
            self.inconclusive += 1
            if self.inconclusive > self.metric.get("inconclusiveLimit", 0):
                self.phase = "Inconclusive"  # which pauses the rollout
        elif self.successes_in_a_row >= self.metric.get("consecutiveSuccessLimit", self._count):
            self.phase = "Successful"
        return self.phase

    @property
    def _count(self) -> float:
        return float(self._filled(str(self.metric.get("count", "inf"))))

    def _ask(self) -> Any:
        """The decoded answer, or text that is not JSON; None for an error. `null` ends the controller."""
        web = self.metric["provider"]["web"]
        url = re.sub(r"^http://[^/]+", self.base_url, self._filled(web["url"]))
        headers = {header["key"]: self._filled(header["value"]) for header in web["headers"]}
        body = {key: self._filled(value) if isinstance(value, str) else value for key, value in web["jsonBody"].items()}
        try:
            answer = httpx.request(
                web["method"], url, json=body, headers=headers, timeout=web["timeoutSeconds"], trust_env=False
            )
        except httpx.HTTPError:
            return None
        if not answer.is_success:
            return None
        try:
            decoded = answer.json()
        except ValueError:
            self.misread.append(answer.text)
            return answer.text
        if decoded is None:
            raise ProviderCrashed
        assert len(answer.content) < 4096
        return decoded

    def _outcome(self, answer: Mapping[str, Any] | str) -> Phase:
        if isinstance(answer, str):
            return "Successful"
        if _holds(self.metric["failureCondition"], answer):
            return "Failed"
        return "Successful" if _holds(self.metric["successCondition"], answer) else "Inconclusive"

    def _filled(self, text: str) -> str:
        return re.sub(r"\{\{args\.(\w+)\}\}", lambda found: self.args[found[1]], text)


@dataclass
class ArgoRollout:
    """The steps of a Rollout with the templates that it names."""

    rollout: Mapping[str, Any]
    templates: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, str]  # canary and stable hash, name, namespace, token
    base_url: str
    weight: int = 0
    state: Literal["progressing", "promoted", "aborted", "paused"] = "progressing"
    run: AnalysisRun | None = None

    def __post_init__(self) -> None:
        canary = self.rollout["spec"]["strategy"]["canary"]
        self.background = self._run_of(canary["analysis"])
        self._steps: Iterator[Mapping[str, Any]] = iter(canary["steps"])

    def reconcile(self) -> None:
        """One round: the background analysis, and the current step."""
        if self.state != "progressing":
            return
        for run in filter(None, (self.background, self.run)):
            run.base_url = self.base_url
        found = self.background.measure()
        assert not self.background.misread, "Argo treats this as a success"
        if found in ("Failed", "Error"):
            self._abort()
            return
        if self.run is None:
            step = next(self._steps, None)
            if step is None:
                self.state = "promoted"
            elif "setWeight" in step:
                self.weight = step["setWeight"]
            else:
                self.run = self._run_of(step["analysis"])
            return
        match self.run.measure():
            case "Successful":
                self.run = None
            case "Failed" | "Error":
                self._abort()
            case "Inconclusive":
                self.state = "paused"

    def _abort(self) -> None:
        self.state, self.weight = "aborted", 0

    def _run_of(self, analysis: Mapping[str, Any]) -> AnalysisRun:
        template = self.templates[analysis["templates"][0]["templateName"]]
        args = {arg["name"]: str(arg["value"]) for arg in template["spec"]["args"] if "value" in arg}
        args |= {arg["name"]: self._value(arg) for arg in analysis["args"]} | {"token": self.facts["token"]}
        return AnalysisRun(template["spec"]["metrics"][0], args, self.base_url)

    def _value(self, arg: Mapping[str, Any]) -> str:
        if "value" in arg:
            return str(arg["value"])
        source = arg["valueFrom"]
        if "podTemplateHashValue" in source:
            return self.facts[source["podTemplateHashValue"]]
        return self.facts[source["fieldRef"]["fieldPath"]]


def _holds(condition: str, answer: Mapping[str, Any]) -> bool:
    found = re.fullmatch(r'result\.(\w+) (==|!=) "(\w+)"', condition)
    assert found, condition
    return (answer[found[1]] == found[3]) is (found[2] == "==")


@dataclass
class FlaggerCanary:
    """The tick of a Canary with webhooks."""

    canary: Mapping[str, Any]
    base_url: str
    checksum: str
    token: str
    name: str
    previous: str = "0"  # checksum of the spec that was applied before; `confirm-rollout` carries it
    weight: int = 0
    failed_checks: int = 0
    phase: str = "Waiting"
    said: list[str] = field(default_factory=list)

    def tick(self) -> None:
        """One interval."""
        analysis = self.canary["spec"]["analysis"]
        if self.phase == "Waiting":  # before the canary has pods; its spec counts as applied only afterwards
            if self._asked("confirm-rollout", checksum=self.previous):
                self.phase = "Progressing"
            elif self._asked("rollback", checksum=self.previous, default=False):
                self.phase = "Failed"
        elif self.phase in ("Progressing", "WaitingPromotion"):
            self._advance(analysis["stepWeights"])

    def _advance(self, weights: Sequence[int]) -> None:
        """One round between the first weight and the end."""
        if self._asked("rollback", checksum=self.checksum, default=False):
            self.phase, self.weight = "Failed", 0
            return
        above = [weight for weight in weights if weight > self.weight]
        if not above:
            is_promoted = self._asked("confirm-promotion", checksum=self.checksum)
            self.phase, self.weight = ("Succeeded", 100) if is_promoted else ("WaitingPromotion", self.weight)
        elif self._asked("confirm-traffic-increase", checksum=self.checksum):
            self.weight = above[0]

    def _asked(self, kind: str, *, checksum: str, default: bool = True) -> bool:
        """Whether all hooks of a kind answer 200 or 202. 204, 429 and 5xx mean no; the body of 429 and 5xx is lost."""
        hooks: Sequence[Mapping[str, Any]] = [
            h for h in self.canary["spec"]["analysis"]["webhooks"] if h["type"] == kind
        ]
        payload = {"name": self.name, "namespace": "shop", "phase": self.phase, "checksum": checksum}
        answers = []
        for hook in hooks:
            url = re.sub(r"^http://[^/]+", self.base_url, hook["url"]).partition("?")[0]
            try:
                answer = _HTTP.post(
                    url,
                    params={"token": self.token},
                    json={**payload, "metadata": hook.get("metadata", {})},
                    timeout=30,
                )
            except httpx.HTTPError:
                answers.append(False)
                continue
            is_lost = answer.status_code == 429 or answer.status_code >= 500
            self.said.append(f"{kind} {answer.status_code} {'' if is_lost else answer.text}")
            answers.append(answer.status_code in (200, 202))
        return all(answers) if answers else default


def rounds(engine: Any, until: Callable[[], bool], *, most: int = 40) -> None:
    """Run rounds of an engine until something holds."""
    go_on = engine.reconcile if isinstance(engine, ArgoRollout) else engine.tick
    for _ in range(most):
        if until():
            return
        go_on()
    raise AssertionError(f"still not after {most} rounds: {engine}")
