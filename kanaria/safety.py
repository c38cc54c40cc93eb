"""The commands that guard what is served: `kanaria sign` and `kanaria preflight`."""

import getpass
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kanaria.aside import DidNotStart, served_aside
from kanaria.bentos import model_of
from kanaria.preflight import LocalPreflight
from kanaria.settings import Settings
from kanaria.signing import sign_model
from kanaria.stack import Stack
from rollout.cli import EXIT_DONE, EXIT_FAIL, Json, explained
from rollout.explain import tried_out
from rollout.interfaces import PreflightResult


def sign(
    tag: Annotated[str, typer.Argument(help="Model in the store, `name:version`.")],
    key: Annotated[
        Path | None, typer.Option(help="Private key, PEM. Default: the state folder's own, made on first use.")
    ] = None,
) -> None:
    """Sign a model's files: a server that knows the public key refuses them once a byte has changed."""
    signed = sign_model(Settings(), tag, key)
    typer.echo(f"signed {tag}: {signed.files} files; the public key is {signed.public_key or f'that of {key}'}")


def preflight(
    tag: Annotated[str, typer.Argument(help="Bento to try out, `name:version`.")],
    against: Annotated[
        str | None, typer.Option(help="Bento whose callers it must not break. Default: stable, where there is one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try a Bento out aside, as a release does before any traffic."""
    with explained():
        settings = Settings()
        stable = against or Stack(settings, by=getpass.getuser()).stable()
        for named in filter(None, (tag, stable)):
            model_of(named)  # a tag that is not there is bad input, not a version that fails
        result = _tried(settings, tag, stable)
        if as_json:
            typer.echo(json.dumps({"tag": tag, "stable": stable, **asdict(result)}, indent=2))
        else:
            typer.echo(f"{tag} {'failed' if result.differences else 'passed'} its preflight")
            for line in tried_out(result, stable):
                typer.echo(f"  {line}")
        raise typer.Exit(EXIT_FAIL if result.differences else EXIT_DONE)


def _tried(settings: Settings, tag: str, stable: str | None) -> PreflightResult:
    try:
        with served_aside(settings, tag) as aside:
            found = LocalPreflight({tag: aside.pid}.get).check(aside.backend, stable)
    except DidNotStart as error:
        return PreflightResult(differences=(f"{error.what}: {error.saw}",))
    return found
