"""The options of the manifests, checked so that a cluster and the judge accept the result."""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from kanaria.errors import SetupError
from kanaria.kubernetes.paths import MOST, OF_CONTRACT, Match
from kanaria.kubernetes.tokens import check_token

JUDGE_URL = "http://kanaria-judge.kanaria.svc:8091"
SECRET, SECRET_KEY = "kanaria-judge", "token"
STEPS = (5, 25)  # percent, before 100
_LONGEST_HOSTNAME = 253
_LONGEST_NAME = 50  # Kubernetes allows 63, and engines add `-canary`, `-primary` and hashes
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9][\w.-]*(:\d+)?(/[\w.-]+)*(:\w[\w.-]{0,127})?(@sha256:[0-9a-f]{64})?", re.ASCII)
_HOSTNAME = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
# No login, query or braces: others read the manifests with the URL, and Argo Rollouts expands braces.
_JUDGE = re.compile(r"https?://([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?(/[A-Za-z0-9._~-]+)*")
_STEPS = re.compile(r"\s*[0-9]+%?\s*(,\s*[0-9]+%?\s*)*")


class Engine(StrEnum):
    """The engine that moves the traffic."""

    ARGO = "argo"
    FLAGGER = "flagger"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A Gateway of the Gateway API, to which the model's route is attached."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "Gateway":
        """Parse `NAMESPACE/NAME`. Raises SetupError."""
        namespace, slash, name = text.partition("/")
        if not slash or not _NAMESPACE.fullmatch(namespace) or not _NAMESPACE.fullmatch(name):
            raise SetupError(
                "this is not a valid gateway", saw=text, do="write its namespace and name: --gateway shop/web"
            )
        return cls(namespace, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model and how it is released. Raises SetupError if a cluster would refuse it."""

    tag: str  # the Bento's tag
    name: str
    namespace: str
    image: str
    port: int
    replicas: int
    profile: str
    engine: Engine
    steps: tuple[int, ...] = STEPS  # percent of the traffic, before all of it
    gateway: Gateway | None = None  # None: Argo Rollouts sets the weights by the numbers of pods
    hostnames: tuple[str, ...] = ()  # of the gateway's route; empty: all
    paths: tuple[Match, ...] = OF_CONTRACT  # of the gateway's route
    judge_url: str = JUDGE_URL
    token: str | None = None  # for Flagger's hooks; None: a placeholder

    def __post_init__(self) -> None:
        for is_wrong, what, saw, do in (
            (
                not _NAME.fullmatch(self.name) or len(self.name) > _LONGEST_NAME,
                "the model's name is not valid in Kubernetes",
                self.name,
                f"use --name {_fitting(self.name)}, or another of a-z, 0-9 and `-`, at most {_LONGEST_NAME} long",
            ),
            (
                not _NAMESPACE.fullmatch(self.namespace),
                "this is not a valid namespace",
                self.namespace,
                "write a-z, digits and `-`, at most 63 characters: --namespace shop",
            ),
            (
                not _IMAGE.fullmatch(self.image),
                "this is not a valid image",
                self.image,
                "write it as for `docker pull`: --image registry.example.com/digits:v2",
            ),
            (
                _tag_of(self.image) in ("", "latest"),
                "the image has no version",
                self.image,
                "add one, such as `digits:v2`: an engine sees no new version under the same name",
            ),
            (not 1 <= self.port <= 65535, "this is not a valid port", str(self.port), "write one from 1 to 65535"),
            (
                not 1 <= self.replicas <= 1000,
                "this is not a valid number of pods",
                str(self.replicas),
                "write 1 to 1000",
            ),
            (
                not self.steps or list(self.steps) != sorted({step for step in self.steps if 1 <= step <= 99}),
                "the steps are not rising weights",
                ",".join(map(str, self.steps)),
                "write whole percents from 1 to 99, the smallest first: --steps 5,25",
            ),
            (
                self.engine is Engine.FLAGGER and self.gateway is None,
                "Flagger needs a gateway to set weights",
                "no --gateway",
                "name a Gateway of the Gateway API: --gateway shop/web",
            ),
            (
                self.engine is Engine.ARGO and self.gateway is None and self.replicas == 1,
                "one pod cannot split the traffic",
                "--replicas 1 without --gateway",
                "use more pods, or name a Gateway of the Gateway API: --gateway shop/web",
            ),
            (
                not _is_url(self.judge_url),
                "this is not a valid URL of a judge",
                self.judge_url,
                f"write a scheme, a host and a port, without login or query: --judge {JUDGE_URL}",
            ),
            (
                self.gateway is None and (bool(self.hostnames) or self.paths != OF_CONTRACT),
                "host names and paths need a gateway's route",
                ", ".join((*self.hostnames, *(each.path for each in self.paths))),
                "also name a Gateway of the Gateway API: --gateway shop/web",
            ),
            (
                not all(map(_is_hostname, self.hostnames)),
                "this is not a valid host name",
                ", ".join(self.hostnames),
                "write it without scheme and port, in lower case: --hostname shop.example.com",
            ),
            (
                self.gateway is not None and not 1 <= len(self.paths) <= MOST,
                "the route has no path" if not self.paths else "the route has too many paths",
                f"{len(self.paths)} of the Bento",
                f"name at most {MOST} path prefixes of callers' requests: --path /v1",
            ),
        ):
            if is_wrong:
                raise SetupError(what, saw=saw or "nothing", do=do)
        if self.token is not None:
            check_token(self.token)

    @property
    def weights(self) -> tuple[int, ...]:
        """The steps, then 100. Without a gateway: only weights that this number of pods can have."""
        if self.gateway is not None:
            return (*self.steps, 100)
        pods = sorted({max(1, round(step * self.replicas / 100)) for step in self.steps} - {self.replicas})
        return (*(-(-100 * each // self.replicas) for each in pods), 100)


def parse_steps(text: str) -> tuple[int, ...]:
    """Parse steps such as `5,25`. Raises SetupError."""
    if not _STEPS.fullmatch(text):
        do = "write whole percents from 1 to 99, the smallest first: --steps 5,25"
        raise SetupError("the steps are not rising weights", saw=text or "nothing", do=do)
    return tuple(int(each.strip().removesuffix("%")) for each in text.split(","))


def _fitting(name: str) -> str:
    """A valid Kubernetes name close to the given one."""
    fitting = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    whole = fitting if fitting[:1].isalpha() else f"model-{fitting}"
    return whole[:_LONGEST_NAME].strip("-")


def _tag_of(image: str) -> str:
    path, _, digest = image.partition("@")
    return digest or path.rpartition("/")[2].partition(":")[2]


def _is_url(text: str) -> bool:
    try:
        return bool(_JUDGE.fullmatch(text)) and urlsplit(text).port != 0  # raises ValueError if it is too large
    except ValueError:
        return False


def _is_hostname(text: str) -> bool:
    is_address = text.replace(".", "").isdigit()
    return len(text) <= _LONGEST_HOSTNAME and bool(_HOSTNAME.fullmatch(text)) and not is_address
