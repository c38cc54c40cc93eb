"""The paths of a route: those for callers, not the metrics and probes."""

import re
from dataclasses import dataclass

from contract.http import FEEDBACK_PATH, LIVE_PATH, METRICS_PATH, READY_PATH
from kanaria.errors import SetupError
from rollout.fleet import CONTRACT, Service

MOST = 64  # paths in one rule of an HTTPRoute
PRIVATE = (METRICS_PATH, LIVE_PATH, READY_PATH)
_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?")


@dataclass(frozen=True, slots=True)
class Match:
    """A path, or a path prefix. Raises SetupError if an HTTPRoute would refuse it."""

    path: str
    is_prefix: bool = False

    def __post_init__(self) -> None:
        if not self.path or not _PATH.fullmatch(self.path):
            do = "begin it with `/`, as in callers' requests: --path /predict"
            raise SetupError("this is not a valid path", saw=self.path or "nothing", do=do)

    @property
    def private(self) -> tuple[str, ...]:
        """The matched paths that are not for callers."""
        below = self.path.rstrip("/")
        return tuple(each for each in PRIVATE if each == self.path or (self.is_prefix and below in ("", each)))


def below(path: str) -> Match:
    """All paths that begin with `path`. Raises SetupError."""
    return Match(path, is_prefix=True)


def paths_of(service: Service) -> tuple[Match, ...]:
    """The paths of the routes that a service declares."""
    feedback = (Match(FEEDBACK_PATH),) if service.keeps_contract else ()
    own = (_match(route.path, is_whole=not route.is_streamed) for route in service.routes)
    return tuple(dict.fromkeys((*own, *feedback)))


def _match(path: str, *, is_whole: bool) -> Match:
    """A part in braces matches any text, so the path before it becomes a prefix, as for a mounted application."""
    fixed, brace, _ = path.partition("{")
    if brace:
        return Match(fixed.rpartition("/")[0] or "/", is_prefix=True)
    return Match(path) if is_whole else Match(path.rstrip("/") or "/", is_prefix=True)


OF_CONTRACT = paths_of(CONTRACT)
