"""What manifests are wanted: checked, so that a cluster takes them and the judge understands what they ask."""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from kanaria.errors import SetupError

JUDGE_URL = "http://kanaria-judge.kanaria.svc:8091"
SECRET, SECRET_KEY = "kanaria-judge", "token"
STEPS = (5, 25)  # percent; then all
_SHORTEST_TOKEN = 20  # letters, as `kanaria judge serve` wants it
_LONGEST_NAME = 50  # of 63: engines add `-canary`, `-primary` and hashes
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9][\w.-]*(:\d+)?(/[\w.-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")


class Engine(StrEnum):
    """What moves the traffic."""

    ARGO = "argo"
    FLAGGER = "flagger"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A Gateway of the Gateway API, which the model's route is attached to."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "Gateway":
        """`NAMESPACE/NAME`. Raises SetupError."""
        namespace, slash, name = text.partition("/")
        if not slash or not _NAMESPACE.fullmatch(namespace) or not _NAMESPACE.fullmatch(name):
            raise SetupError("that is no gateway", saw=text, do="write its namespace and its name: --gateway shop/web")
        return cls(namespace, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model and how it is released. Raises SetupError where no cluster would take it."""

    tag: str  # of the Bento
    name: str
    namespace: str
    image: str
    port: int
    replicas: int
    profile: str
    engine: Engine
    steps: tuple[int, ...] = STEPS  # percent of the traffic, before all of it
    gateway: Gateway | None = None  # None: Argo Rollouts lets the numbers of pods be the weights
    judge_url: str = JUDGE_URL
    token: str | None = None  # that Flagger's hooks carry; None: a placeholder stands in its place

    def __post_init__(self) -> None:
        for is_wrong, what, saw, do in (
            (
                not _NAME.fullmatch(self.name) or len(self.name) > _LONGEST_NAME,
                "the model's name is none for Kubernetes",
                self.name,
                f"give another with --name: small letters, digits and `-`, at most {_LONGEST_NAME}",
            ),
            (
                not _NAMESPACE.fullmatch(self.namespace),
                "that is no namespace",
                self.namespace,
                "write small letters, digits and `-`, at most 63: --namespace shop",
            ),
            (
                not _IMAGE.fullmatch(self.image),
                "that is no image",
                self.image,
                "write it as `docker pull` takes it: --image registry.example.com/digits:v2",
            ),
            (
                _tag_of(self.image) in ("", "latest"),
                "the image has no version",
                self.image,
                "name one, such as `digits:v2`: under the same name an engine sees no new version",
            ),
            (not 1 <= self.port <= 65535, "that is no port", str(self.port), "write one from 1 to 65535"),
            (not 1 <= self.replicas <= 1000, "so many pods cannot be", str(self.replicas), "write 1 to 1000"),
            (
                not self.steps or list(self.steps) != sorted({step for step in self.steps if 1 <= step <= 99}),
                "the steps are no rising weights",
                ",".join(map(str, self.steps)),
                "write whole percents from 1 to 99, the smallest first: --steps 5,25",
            ),
            (
                self.engine is Engine.FLAGGER and self.gateway is None,
                "Flagger moves no weights without a gateway",
                "no --gateway",
                "name a Gateway of the Gateway API: --gateway shop/web",
            ),
            (
                self.engine is Engine.ARGO and self.gateway is None and self.replicas == 1,
                "one pod cannot share the traffic",
                "--replicas 1 without --gateway",
                "give more pods, or name a Gateway of the Gateway API: --gateway shop/web",
            ),
            (
                not _is_url(self.judge_url),
                "that is no URL of a judge",
                self.judge_url,
                f"write a scheme and a host: --judge {JUDGE_URL}",
            ),
            (
                self.token is not None and len(self.token) < _SHORTEST_TOKEN,
                "the token is too short",
                f"{len(self.token or '')} letters",
                f"the judge takes {_SHORTEST_TOKEN} or more",
            ),
        ):
            if is_wrong:
                raise SetupError(what, saw=saw or "nothing", do=do)

    @property
    def weights(self) -> tuple[int, ...]:
        """The steps, then all the traffic. Where pods are the weights, only what so many pods can have."""
        if self.gateway is not None:
            return (*self.steps, 100)
        pods = sorted({max(1, round(step * self.replicas / 100)) for step in self.steps} - {self.replicas})
        return (*(-(-100 * each // self.replicas) for each in pods), 100)


def parse_steps(text: str) -> tuple[int, ...]:
    """`5,25`. Raises SetupError."""
    try:
        return tuple(int(each.strip().removesuffix("%")) for each in text.split(","))
    except ValueError as error:
        do = "write whole percents from 1 to 99, the smallest first: --steps 5,25"
        raise SetupError("the steps are no rising weights", saw=text, do=do) from error


def _tag_of(image: str) -> str:
    path, _, digest = image.partition("@")
    return digest or path.rpartition("/")[2].partition(":")[2]


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
