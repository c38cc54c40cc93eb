"""Which requests a route takes: those that the model answers for callers, not its metrics and probes."""

import re
from dataclasses import dataclass

from contract.http import FEEDBACK_PATH, LIVE_PATH, METRICS_PATH, READY_PATH
from kanaria.errors import SetupError
from rollout.fleet import CONTRACT, Service

MOST = 64  # that a rule of an HTTPRoute may have
PRIVATE = (METRICS_PATH, LIVE_PATH, READY_PATH)
_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?")


@dataclass(frozen=True, slots=True)
class Match:
    """A path, or all paths below it, too. Raises SetupError where an HTTPRoute would not take it."""

    path: str
    is_prefix: bool = False

    def __post_init__(self) -> None:
        if not self.path or not _PATH.fullmatch(self.path):
            do = "begin it with `/`, as callers ask: --path /predict"
            raise SetupError("that is no path", saw=self.path or "nothing", do=do)

    @property
    def private(self) -> tuple[str, ...]:
        """What it takes that is not for callers."""
        below = self.path.rstrip("/")
        return tuple(each for each in PRIVATE if each == self.path or (self.is_prefix and below in ("", each)))


def below(path: str) -> Match:
    """All paths that begin with it. Raises SetupError."""
    return Match(path, is_prefix=True)


def paths_of(service: Service) -> tuple[Match, ...]:
    """Of the routes that a service declares."""
    feedback = (Match(FEEDBACK_PATH),) if service.keeps_contract else ()
    own = (_match(route.path, is_whole=not route.is_streamed) for route in service.routes)
    return tuple(dict.fromkeys((*own, *feedback)))


def _match(path: str, *, is_whole: bool) -> Match:
    """A part in braces stands for any text: then all below is taken, as for an application in the service."""
    fixed, brace, _ = path.partition("{")
    if brace:
        return Match(fixed.rpartition("/")[0] or "/", is_prefix=True)
    return Match(path) if is_whole else Match(path.rstrip("/") or "/", is_prefix=True)


OF_CONTRACT = paths_of(CONTRACT)
