"""What replicas of the judge share about a release, in an annotation of its Rollout or Canary.

It takes rights in the cluster: `get` and `patch` of these two kinds, and nothing else.
"""

import os
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from contract import loopback
from contract.complaints import first_complaint
from rollout.errors import RolloutError, SpecError
from rollout.server.kept import Attempt
from rollout.server.shared import Tries

ANNOTATION = "kanaria/judge"
_TRIES = 5  # where somebody else changes the resource at the same time
_TIMEOUT_S = 2.0  # an engine waits for the verdict
_REFUSED = {
    401: "the service account's token is not accepted: see that its folder is mounted, and is of this cluster",
    403: "let the judge's service account get and patch rollouts and canaries",
    409: "nothing: it is tried again with the next question",
    422: "see whether an admission policy forbids the annotation",
}
_BUSY = "nothing: it is tried again with the next question; if it stays so, see how the API server is"
_NO_API = "see KUBERNETES_SERVICE_HOST, and whether a proxy stands between the judge and the API server"


class ClusterSilent(RolloutError):
    """What is shared cannot be read or written. The verdict does not depend on it."""


class NoResource(ClusterSilent):
    """The release is no Rollout or Canary, so there is nothing to write on: a CI job asks, for example."""


Change = Callable[[Tries], Tries]


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

    def read(self, attempt: Attempt) -> Tries:
        """What is shared about the release of an attempt. Raises ClusterSilent, as all do here."""
        return self._read(attempt)[1]

    def change(self, attempt: Attempt, change: Change) -> bool:
        """Change what is shared, whoever else does so at the same time; False: it was so already."""
        for _ in range(_TRIES):
            version, known = self._read(attempt)
            changed = change(known)
            if changed == known:
                return False
            text = changed.model_dump_json(exclude_defaults=True)
            metadata = {"annotations": {ANNOTATION: text}, "resourceVersion": version}
            answer = self._ask("PATCH", attempt, {"metadata": metadata})
            if answer.status_code != HTTPStatus.CONFLICT:
                self._check(answer, attempt)
                return True
        raise ClusterSilent(
            "what the judge found is not shared with its other replicas",
            saw=f"{_path(attempt)} was changed by others {_TRIES} times in a row",
            do="nothing: it is tried again with the next question",
        )

    def _read(self, attempt: Attempt) -> tuple[str, Tries]:
        """The version of the resource, and its annotation."""
        answer = self._ask("GET", attempt)
        self._check(answer, attempt)
        try:
            metadata = answer.json()["metadata"]
            version = str(metadata["resourceVersion"])
            text = (metadata.get("annotations") or {}).get(ANNOTATION, "{}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ClusterSilent(
                "what answers in the place of the Kubernetes API gives no resource",
                saw=f"HTTP {answer.status_code} for {_path(attempt)}: {answer.text[:60]!r}",
                do=_NO_API,
            ) from error
        try:
            return version, Tries.model_validate_json(text)
        except ValidationError as error:
            raise ClusterSilent(
                "what the judge's replicas share cannot be read",
                saw=f"the annotation {ANNOTATION} of {_path(attempt)}: {first_complaint(error, whole='it'):.150}",
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
        if answer.is_success:
            return
        status = answer.status_code
        saw = f"HTTP {status} for {_path(attempt)}"
        if status == HTTPStatus.NOT_FOUND:
            raise NoResource("the release is no Rollout or Canary of the cluster", saw=saw, do="nothing")
        do = _BUSY if status == HTTPStatus.TOO_MANY_REQUESTS or answer.is_server_error else _NO_API
        raise ClusterSilent(
            "the Kubernetes API does not take what the judge's replicas share", saw=saw, do=_REFUSED.get(status, do)
        )


def _path(attempt: Attempt) -> str:
    """Flagger's canary has the name of its resource, that of Argo Rollouts is a hash."""
    is_flagger = attempt.canary == attempt.rollout
    group, kind = ("flagger.app/v1beta1", "canaries") if is_flagger else ("argoproj.io/v1alpha1", "rollouts")
    return f"/apis/{group}/namespaces/{attempt.namespace}/{kind}/{attempt.rollout}"
