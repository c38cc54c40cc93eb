"""Shares state about all releases between the judge's replicas, in one ConfigMap in their namespace.

It needs the right to get and patch only that object. With this right, nothing that moves traffic can be changed.
"""

import hashlib
import math
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from contract import loopback
from contract.complaints import first_complaint
from contract.deadline import left_s
from rollout.errors import RolloutError, SpecError
from rollout.server.kept import Attempt
from rollout.server.shared import Tries, change_of

CONFIG_MAP = "kanaria-judge-shared"
_LONGEST_KEY = 253  # of a ConfigMap's data, characters
_TIMEOUT_S = 2.0  # an engine waits for the verdict
_TRIED_S = 2.0  # how long to retry while other replicas change it at the same time
_TURN_S = 5.0  # how long to wait for other threads of this replica; each takes some hundredths of a second
_PAUSES_S = (0.0, 0.05)  # between two tries; random, so that replicas do not collide again
_REFUSED = {
    401: "the service account's token is not accepted: check that its folder is mounted and from this cluster",
    403: f"let the judge's service account get and patch the ConfigMap {CONFIG_MAP}",
    404: f"make an empty ConfigMap {CONFIG_MAP} in the judge's namespace: the component `shared` has it",
    409: "nothing: the next question tries again",
    422: f"check whether an admission policy forbids the change, and whether {CONFIG_MAP} is immutable",
}
_BUSY = "nothing: the next question tries again; if this continues, check the API server"
_NO_API = "check KUBERNETES_SERVICE_HOST, and whether there is a proxy between the judge and the API server"


class ClusterSilent(RolloutError):
    """The shared state cannot be read or written. The verdict does not depend on it."""


class Told(Enum):
    """The outcome of a change."""

    NEW = "new"  # it was made
    KNOWN = "known"  # nothing had to change
    NO_ROOM = "no room"  # the ConfigMap is full


Change = Callable[[Tries], Tries]


class SharedMap:
    """The ConfigMap in the cluster in which this process runs."""

    def __init__(self, account: Path, environment: Mapping[str, str] = os.environ) -> None:
        """
        Args:
            account: the folder of a service account: `namespace`, `ca.crt`, and `token`, which is read again each time.
            environment: has the address of the API server, as in every pod.

        Raises: SpecError outside a cluster.
        """
        host, port = (environment.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
        try:
            trust = ssl.create_default_context(cafile=str(account / "ca.crt"))
            (account / "token").read_text()
            namespace = (account / "namespace").read_text().strip()
        except (OSError, ssl.SSLError) as error:
            raise SpecError(
                "the service account cannot be read",
                saw=f"{account}: {error}",
                do="run it in a pod with `automountServiceAccountToken: true`, or leave --share out",
            ) from error
        if not host or not port:
            raise SpecError(
                "there is no Kubernetes API through which replicas could share",
                saw="no KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT in the environment",
                do="run it in a pod, or leave --share out",
            )
        self._account = account
        self._path = f"/api/v1/namespaces/{namespace}/configmaps/{CONFIG_MAP}"
        address = f"[{host}]" if ":" in host else host
        self._http = loopback.client(f"https://{address}:{port}", timeout_s=_TIMEOUT_S, trust=trust)
        self._changing = threading.Lock()  # so that threads of one replica do not collide at the API server
        self._silent_s = -math.inf  # when the API last gave no answer, on the monotonic clock

    def read(self, attempt: Attempt) -> Tries:
        """What is shared about the release of an attempt. Every method raises ClusterSilent."""
        return self._tries(attempt, self._read()[1])

    def lifts(self, attempts: Iterable[Attempt]) -> dict[Attempt, float]:
        """The times up to which failures are lifted, for several attempts with one read; see `Tries.lifted_s`."""
        _, data = self._read()
        found = {}
        for attempt in attempts:
            with suppress(ClusterSilent):  # a person wrote something unreadable into this release's line
                found[attempt] = self._tries(attempt, data).lifted_s(attempt)
        return found

    def change(self, attempt: Attempt, change: Change) -> tuple[Tries, Told]:
        """Change the shared state, even if other replicas change it at the same time. Returns the new state."""
        with self._alone():
            until_s = time.monotonic() + left_s(_TRIED_S)
            while True:
                version, data = self._read()
                known = self._tries(attempt, data)
                changed = change(known)
                if changed == known:
                    return known, Told.KNOWN
                told = change_of(data, _key(attempt), known, changed)
                if not told:
                    return known, Told.NO_ROOM
                answer = self._ask("PATCH", {"metadata": {"resourceVersion": version}, "data": told})
                if answer.status_code != HTTPStatus.CONFLICT:
                    self._check(answer)
                    return changed.newest(), Told.NEW
                if time.monotonic() > until_s:
                    raise _busy(f"{self._path} was changed by others for {_TRIED_S:.0f} s")
                time.sleep(random.uniform(*_PAUSES_S))  # noqa: S311 - not a secret

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one thread of this replica in at a time. If one just got no answer, the others do not wait."""
        began_s = time.monotonic()
        if not self._changing.acquire(timeout=left_s(_TURN_S)):
            raise _busy(f"{self._path} is being changed for other questions for {_TURN_S:.0f} s")
        try:
            if self._silent_s > began_s:
                raise _busy("the Kubernetes API just gave no answer to another question")
            yield
        finally:
            self._changing.release()

    def _read(self) -> tuple[str, dict[str, str]]:
        """The version of the ConfigMap, and all its data."""
        answer = self._ask("GET")
        self._check(answer)
        try:
            found = answer.json()
            return str(found["metadata"]["resourceVersion"]), dict(found.get("data") or {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ClusterSilent(
                "the server at the Kubernetes API's address returned no ConfigMap",
                saw=f"HTTP {answer.status_code} for {self._path}: {answer.text[:60]!r}",
                do=_NO_API,
            ) from error

    @staticmethod
    def _tries(attempt: Attempt, data: Mapping[str, str]) -> Tries:
        key = _key(attempt)
        try:
            return Tries.model_validate_json(data.get(key, "{}"))
        except ValidationError as error:
            raise ClusterSilent(
                "the shared state of the judge's replicas cannot be read",
                saw=f"`{key}` in the ConfigMap {CONFIG_MAP}: {first_complaint(error, whole='it'):.150}",
                do="delete that line: `kubectl edit configmap`",
            ) from error

    def _ask(self, method: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            headers = {"authorization": f"Bearer {(self._account / 'token').read_text().strip()}"}
            if body is not None:
                headers["content-type"] = "application/merge-patch+json"
            return self._http.request(method, self._path, headers=headers, json=body)
        except (httpx.HTTPError, OSError, ValueError) as error:
            if left_s():  # otherwise the deadline had passed, and the API is not to blame
                self._silent_s = time.monotonic()
            raise ClusterSilent(
                "the Kubernetes API does not answer",
                saw=f"{error!r:.150}",
                do="nothing is lost: this replica continues by itself",
            ) from error

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        status = answer.status_code
        do = _BUSY if status == HTTPStatus.TOO_MANY_REQUESTS or answer.is_server_error else _NO_API
        raise ClusterSilent(
            "the Kubernetes API refuses the shared state of the judge's replicas",
            saw=f"HTTP {status} for {self._path}",
            do=_REFUSED.get(status, do),
        )


def _busy(saw: str) -> ClusterSilent:
    do = "nothing: the next question tries again"
    return ClusterSilent("the judge's result is not shared with its other replicas", saw=saw, do=do)


def _key(attempt: Attempt) -> str:
    """The key of a release in the data. Kubernetes names do not contain `_`."""
    key = f"{attempt.namespace}_{attempt.rollout}"
    return key if len(key) <= _LONGEST_KEY else hashlib.sha256(key.encode()).hexdigest()
