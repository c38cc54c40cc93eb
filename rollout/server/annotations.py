"""What replicas of the judge share about a release, in an annotation of its Rollout or Canary.

It takes rights in the cluster: `get` and `patch` of these two kinds, and nothing else.
"""

import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from contract import loopback
from rollout.errors import RolloutError, SpecError
from rollout.server.kept import Attempt

ANNOTATION = "kanaria/judge"
_MOST = 10  # tries that are kept in an annotation, the newest ones
_TRIES = 5  # where somebody else changes the resource at the same time
_TIMEOUT_S = 2.0  # an engine waits for the verdict
_CONFLICT = 409


class ClusterSilent(RolloutError):
    """What is shared cannot be read or written. The verdict does not depend on it."""


class Shared(BaseModel):
    """What is known of one try of a version; times are those of the metric store, Unix seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    failed_s: float | None = None
    reason: str = ""
    since: str | None = None
    lifted_s: float | None = None
    first_weight_s: float | None = None

    @property
    def at_s(self) -> float:
        return max(filter(None, (self.failed_s, self.lifted_s, self.first_weight_s)), default=0.0)


class _Tries(RootModel[dict[str, Shared]]):
    """The annotation's text."""


Change = Callable[[Shared], Shared]


class Annotations:
    """The API server of the cluster that this process runs in."""

    def __init__(self, account: Path, environment: Mapping[str, str] = os.environ) -> None:
        """
        Args:
            account: the folder of a service account: `token`, which is read anew each time, and `ca.crt`.
            environment: names the API server, as in every pod.

        Raises: SpecError outside a cluster.
        """
        host, port = (environment.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
        try:
            trust = ssl.create_default_context(cafile=str(account / "ca.crt"))
            (account / "token").read_text()
        except (OSError, ssl.SSLError) as error:
            raise SpecError(
                "the service account cannot be read",
                saw=f"{account}: {error}",
                do="run it in a pod with `automountServiceAccountToken: true`, or leave --annotate out",
            ) from error
        if not host or not port:
            raise SpecError(
                "there is no Kubernetes API to write annotations with",
                saw="no KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT in the environment",
                do="run it in a pod, or leave --annotate out",
            )
        self._account = account
        address = f"[{host}]" if ":" in host else host
        self._http = loopback.client(f"https://{address}:{port}", timeout_s=_TIMEOUT_S, trust=trust)

    def read(self, attempt: Attempt) -> Shared:
        """What is shared about an attempt. Raises ClusterSilent, as all do here."""
        return self._read(attempt)[1].get(_key(attempt), Shared())

    def change(self, attempt: Attempt, change: Change, *, every_try: bool = False) -> bool:
        """Change what is shared, whoever else does so at the same time; False: it was so already.

        Args:
            every_try: change what is shared about all tries of this version.
        """
        for _ in range(_TRIES):
            version, known = self._read(attempt)
            keys = {_key(attempt), *(key for key in known if every_try and _canary(key) == attempt.canary)}
            changed = {key: change(known.get(key, Shared())) for key in keys}
            if all(known.get(key, Shared()) == new for key, new in changed.items()):
                return False
            newest = sorted((known | changed).items(), key=lambda item: item[1].at_s)[-_MOST:]
            text = _Tries(dict(newest)).model_dump_json(exclude_defaults=True)
            metadata = {"annotations": {ANNOTATION: text}, "resourceVersion": version}
            answer = self._ask("PATCH", attempt, {"metadata": metadata})
            if answer.status_code != _CONFLICT:
                self._check(answer, attempt)
                return True
        raise ClusterSilent(
            "what the judge found is not shared with its other replicas",
            saw=f"{_path(attempt)} was changed by others {_TRIES} times in a row",
            do="nothing: it is tried again with the next question",
        )

    def _read(self, attempt: Attempt) -> tuple[str, dict[str, Shared]]:
        """The version of the resource, and its annotation."""
        answer = self._ask("GET", attempt)
        self._check(answer, attempt)
        try:
            metadata = answer.json()["metadata"]
            text = (metadata.get("annotations") or {}).get(ANNOTATION, "{}")
            return str(metadata["resourceVersion"]), _Tries.model_validate_json(text).root
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            faults = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
            raise ClusterSilent(
                "what the judge's replicas share cannot be read",
                saw=f"the annotation {ANNOTATION} of {_path(attempt)}: {faults:.150}",
                do=f"delete it: `kubectl annotate ... {ANNOTATION}-`",
            ) from error

    def _ask(self, method: str, attempt: Attempt, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            headers = {"authorization": f"Bearer {(self._account / 'token').read_text().strip()}"}
            if body is not None:
                headers["content-type"] = "application/merge-patch+json"
            return self._http.request(method, _path(attempt), headers=headers, json=body)
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise ClusterSilent(
                "the Kubernetes API gives no answer",
                saw=f"{error!r:.150}",
                do="nothing is lost: this replica goes on by itself",
            ) from error

    @staticmethod
    def _check(answer: httpx.Response, attempt: Attempt) -> None:
        if not answer.is_success:
            raise ClusterSilent(
                "the Kubernetes API refuses what the judge's replicas share",
                saw=f"HTTP {answer.status_code} for {_path(attempt)}",
                do="let the judge's service account get and patch rollouts and canaries",
            )


def _path(attempt: Attempt) -> str:
    """Flagger's canary has the name of its resource, that of Argo Rollouts is a hash."""
    is_flagger = attempt.canary == attempt.rollout
    group, kind = ("flagger.app/v1beta1", "canaries") if is_flagger else ("argoproj.io/v1alpha1", "rollouts")
    return f"/apis/{group}/namespaces/{attempt.namespace}/{kind}/{attempt.rollout}"


def _key(attempt: Attempt) -> str:
    return f"{attempt.canary}@{attempt.of}" if attempt.of else attempt.canary


def _canary(key: str) -> str:
    return key.partition("@")[0]
