"""`kanaria preflight`: try a version out on the side, as a release does before any traffic."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from contract.terminal import say
from kanaria.settings import Settings
from kanaria.stack.bentos import model_of
from kanaria.stack.environments import InstallError
from kanaria.stack.preflight import LocalPreflight
from kanaria.stack.temporary_server import DidNotStart, temporary_server
from kanaria.stack.versions import Versions
from rollout.control.fitted_plan import refuse_unknown_routes
from rollout.explain.why import preflight_lines
from rollout.ledger.findings import PreflightResult
from rollout.spec import Golden, RolloutSpec
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL, Json, explained
from rollout.ui.cli.reading import stable_version


def preflight(
    tag: Annotated[str, typer.Argument(help="Version to try out, `name:version`.")],
    against: Annotated[
        str | None, typer.Option(help="Version whose callers it must not break. Default: stable, where there is one.")
    ] = None,
    recorded: Annotated[
        bool,
        typer.Option("--recorded", help="Ask it and stable, started on the side too, the recorded requests again."),
    ] = False,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="With --recorded: a route whose requests are not asked again.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try a version out on the side, as a release does before any traffic."""
    with explained():
        settings = Settings()
        versions = Versions(settings.versions)
        tag = versions.full_tag(tag)
        stable = versions.full_tag(against) if against else stable_version(settings.ledger)
        for named in filter(None, (tag, stable)):
            if versions.service(named).keeps_contract:
                model_of(named)  # a tag that is not there is bad input, not a version that fails
        golden = Golden(requests="recorded" if recorded else "own", leave_out=tuple(leave_out or ()))
        refuse_unknown_routes(golden, *(versions.service(named) for named in (tag, stable) if named))
        result = _preflight(settings, versions, tag, stable, RolloutSpec(golden=golden))
        if as_json:
            typer.echo(json.dumps({"tag": tag, "stable": stable, **asdict(result)}, indent=2))
        else:
            typer.echo(f"{tag} {'failed' if result.differences else 'passed'} its preflight")
            for line in preflight_lines(result, stable):
                say(f"  {line}")
        raise typer.Exit(EXIT_FAIL if result.differences else EXIT_DONE)


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
