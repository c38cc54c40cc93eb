"""Tries out a version: runs the preflight of a release on a server that is started for it."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from contract.terminal import say
from kanaria.settings import Settings
from kanaria.stack.bentos import model_of
from kanaria.stack.environments import InstallError
from kanaria.stack.preflight import LocalPreflight
from kanaria.stack.temporary_server import DidNotStart, temporary_server
from kanaria.stack.versions import Versions
from rollout.control.fitted_plan import refuse_unknown_routes
from rollout.ledger.findings import PreflightResult
from rollout.spec import Golden, RolloutSpec
from rollout.ui.cli.reading import stable_version


@dataclass(frozen=True, slots=True)
class TriedOut:
    """A version that was tried out."""

    tag: str
    stable: str | None  # the version whose callers it must not break
    result: PreflightResult


def try_out(tag: str, *, against: str | None, is_recorded: bool, leave_out: Sequence[str]) -> TriedOut:
    """Try out a version against `against`, or stable. Raises RolloutError, KanariaError."""
    settings = Settings()
    versions = Versions(settings.versions)
    tag = versions.full_tag(tag)
    stable = versions.full_tag(against) if against else stable_version(settings.ledger)
    for named in filter(None, (tag, stable)):
        if versions.service(named).keeps_contract:
            model_of(named)  # raises: a missing tag is bad input, not a failed preflight
    golden = Golden(requests="recorded" if is_recorded else "own", leave_out=tuple(leave_out))
    refuse_unknown_routes(golden, *(versions.service(named) for named in (tag, stable) if named))
    return TriedOut(tag, stable, _preflight(settings, versions, tag, stable, RolloutSpec(golden=golden)))


def _preflight(
    settings: Settings, versions: Versions, tag: str, stable: str | None, plan: RolloutSpec
) -> PreflightResult:
    preflight_say = partial(say, err=True)
    try:
        with ExitStack() as servers:
            server = servers.enter_context(temporary_server(settings, tag, say=preflight_say))
            beside = None
            if stable and plan.golden.requests == "recorded":
                beside = servers.enter_context(temporary_server(settings, stable, say=preflight_say)).backend
            checker = LocalPreflight({tag: server.pid}.get, versions.service, settings)
            return checker.check(server.backend, stable, plan, beside=beside)
    except (DidNotStart, InstallError) as error:
        return PreflightResult(differences=(f"{error.what}: {error.saw}",))
