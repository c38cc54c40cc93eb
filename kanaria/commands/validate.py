"""`kanaria validate`: checks a plan or a model, and does nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ValidationError

from contract.terminal import say
from kanaria.errors import SetupError
from kanaria.lazy import load
from kanaria.settings import Settings
from kanaria.stack.bentos import (
    bento_folder,
    bento_tags,
    implementation_of,
    model_folder,
    model_of,
    model_tag,
    model_tags,
    store,
    variables_of,
)
from kanaria.stack.implementations import implementation_here
from kanaria.stack.inherited import as_reason, first_word, inherited, withheld
from kanaria.stack.listed import Listed
from kanaria.stack.versions import Versions
from rollout.control.fitted_plan import fitted, refuse_callers_without_names, refuse_unknown_routes
from rollout.errors import CommandRefused
from rollout.explain.plan import plan_in_words
from rollout.fleet import Readiness, Service
from rollout.spec import RolloutSpec
from rollout.ui.cli import EXIT_BAD_INPUT, EXIT_DONE, explained
from rollout.ui.cli.answers import are_recorded_read, is_read
from rollout.ui.cli.conventions import access_of
from rollout.ui.cli.plan import DEFAULT_SPEC, look_at_stable, read_spec, warn

_SHOWN_FAULTS = 5


@dataclass(frozen=True, slots=True)
class _Model:
    """The files and the class of a model."""

    files: Path
    implementation: str  # the class, as `package.module:Class`
    sources: Path  # the folder with that package


class _Fault(BaseModel):
    what: str
    saw: str
    do: str


class _Remark(_Fault):
    signal: str


class _Found(BaseModel):
    """The output of service/validation."""

    faults: list[_Fault]
    remarks: list[_Remark]
    golden: int
    samples: int
    right: int


def validate(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(help="A plan (YAML), the tag of a Bento or a model, or the folder of a model's files.")
    ] = str(DEFAULT_SPEC),
    implementation: Annotated[
        str | None,
        typer.Option(
            help="Class that loads the model, `package.module:Class`. Default: from bentofile.yaml, or the Bento."
        ),
    ] = None,
    answer: Annotated[
        Path | None,
        typer.Option(
            help="A JSON answer of the service to test the plan's `answers` with. Default: the recorded ones."
        ),
    ] = None,
    route: Annotated[
        str | None, typer.Option(help="The route of that answer. Default: the only one in `answers`.")
    ] = None,
) -> None:
    """Check a plan, or whether a model keeps its contract, without doing anything."""
    with explained():
        versions = Versions(Settings().versions)
        target = _named(target, versions)
        if not _is_model(target):
            plan = _checked_plan(Path(target))
            typer.echo(f"{target} is valid. By this plan:")
            for sentence in plan_in_words(plan):
                typer.echo(f" • {sentence}")
            _warn_of_unknown_routes(plan, versions)
            if addresses := Settings().notify:
                found = load("kanaria.stack.notify_addresses:read_addresses")(addresses)
                typer.echo(f"Decisions are sent to {', '.join(address.name for address in found)}.")
            if not _is_readable(plan, answer, route):
                raise typer.Exit(EXIT_BAD_INPUT)
            raise typer.Exit(EXIT_DONE if _is_countable(plan, context) else EXIT_BAD_INPUT)
        listed = versions.listed(target)
        versions.require_startable(target)
        if target in bento_tags() and not listed:
            _warn_of_other_packages(target)
        if (listed or target in bento_tags()) and not (service := versions.service(target)).keeps_contract:
            with nullcontext() if listed else _verified(target):
                for line in _of_own_service(target, service, read_spec(None), listed):
                    say(line)
            return
        # The model's code runs with the packages of a server.
        load("kanaria.extras:require")("kanaria validate MODEL", "serve")
        with _model(target, implementation) as model:
            found = _found(model)
        judged = read_spec(None).signals.selection().keys
    for remark in found.remarks:
        if remark.signal in judged:
            say(f"{remark.what}\n  saw: {remark.saw}\n  do:  {remark.do}", colour="yellow", err=True)
    for fault in found.faults[:_SHOWN_FAULTS]:
        say(f"{fault.what}\n  saw: {fault.saw}\n  do:  {fault.do}", colour="red", err=True)
    if more := found.faults[_SHOWN_FAULTS:]:
        typer.secho(f"and {len(more)} more like these", fg="red", err=True)
    if not found.faults:
        typer.echo(
            f"{target} keeps the model contract: {found.golden} golden requests answered as recorded, "
            f"{found.right} of {found.samples} samples right"
        )
    raise typer.Exit(EXIT_BAD_INPUT if found.faults else EXIT_DONE)


def _warn_of_other_packages(tag: str) -> None:
    """Warn about folders of a Bento that it does not import. Raises SetupError."""
    for name, other in load("kanaria.stack.shadowed:shadowed")(Settings(), tag, bento_folder(tag) / "src"):
        say(
            f"`import {name}` in {tag} does not import its own folder {name}\n"
            f"  saw: no __init__.py in it, so Python imports {other}\n"
            f"  do:  add an empty {name}/__init__.py and build it again",
            colour="yellow",
            err=True,
        )


def _warn_of_unknown_routes(plan: RolloutSpec, versions: Versions) -> None:
    """Warn about routes in `leave_out` that stable lacks: they may be misspelt, or new in the next version."""
    if not plan.golden.leave_out:
        return
    stable = load("rollout.ui.cli.reading:stable_version")(Settings().ledger)
    if stable in versions.tags():
        try:
            refuse_unknown_routes(plan.golden, versions.service(stable))
        except CommandRefused as error:
            say(f"note: {error.what}\n  saw: {stable}; {error.saw}\n  do:  {error.do}", colour="yellow", err=True)


def _is_readable(plan: RolloutSpec, answer: Path | None, route: str | None) -> bool:
    """Whether the plan's `answers` can be read from a real answer. True if there is no answer to try."""
    if answer is not None:
        return is_read(plan, answer, route)
    if not plan.answers:
        return True
    recorded = load("contract.recorded:RecordedFolder")(Settings().recorded).requests()
    return are_recorded_read(plan, (request for _, request in recorded if request))


def _is_countable(plan: RolloutSpec, context: typer.Context) -> bool:
    """Whether stable's metrics page has the plan's own signals. True if that is unknown."""
    return not plan.signals.own or look_at_stable(plan, access_of(context).client)


def _of_own_service(tag: str, service: Service, plan: RolloutSpec, listed: Listed | None) -> Iterator[str]:
    """What a release of a service without the contract can check. Raises CommandRefused for an impossible plan."""
    yield f"{tag} does not keep the model contract; it can be released as it is"
    paths = [route.path + (" (streamed)" if route.is_streamed else "") for route in service.routes]
    source = "entry" if listed else "manifest"
    yield f"  routes: {', '.join(paths) or f'its {source} names none; every path is passed'}"
    if listed is not None or service.readiness != Readiness():
        yield f"  ready:  {_readiness(service.readiness)}"
    if service.has_tls:
        yield "  ssl:    not used: callers see the gateway's certificate (KANARIA_TLS_CERTIFICATE)"
    spec, left_out = fitted(plan, tag, service, service, is_observed=True)
    yield f"  judged: {', '.join(name for name, options in spec.signals.root.items() if options)}"
    yield from (f"  {part}" for part in left_out.split("; ") if part)
    asked_for = () if listed else variables_of(tag)
    if words := first_word(withheld(os.environ, (*Settings().pass_env, *asked_for))):
        yield f"  {words}"


def _readiness(readiness: Readiness) -> str:
    sign = "any answer below 500" if readiness.below > HTTPStatus.BAD_REQUEST else "success"
    return f"{sign} at {readiness.path}"


def _checked_plan(path: Path) -> RolloutSpec:
    """The plan in a file. Raises SpecError, CommandRefused; SetupError if there is no file: it may name a model."""
    if not path.exists():
        models, bentos = ", ".join(model_tags()) or "none", ", ".join(bento_tags()) or "none"
        raise SetupError(
            f"there is no plan {path}",
            saw=f"no such file; models here: {models}; Bentos here: {bentos}",
            do="give the path of a plan, or the tag of a model or a Bento: NAME:VERSION",
        )
    plan = read_spec(path)
    refuse_callers_without_names(plan, asks_for_keys=Settings().needs_api_key)
    warn(plan)
    return plan


def _named(target: str, versions: Versions) -> str:
    """The full tag, if `target` names a version or a model; otherwise `target`."""
    for full_tag in () if Path(target).exists() else (versions.full_tag, model_tag):
        with suppress(SetupError):
            return full_tag(target)
    return target


def _is_model(target: str) -> bool:
    return Path(target).is_dir() or (":" in target and not Path(target).exists())


def _verified(bento: str) -> AbstractContextManager[Path]:
    """See `verified_store`, which needs the extra `serve`."""
    load("kanaria.extras:require")("kanaria validate BENTO", "serve")
    found: AbstractContextManager[Path] = load("kanaria.stack.sealing:verified_store")(Settings(), bento)
    return found


@contextmanager
def _model(target: str, implementation: str | None) -> Iterator[_Model]:
    """The model that `target` names, verified if its server would verify it. Raises SetupError."""
    if target in bento_tags():
        own, sources = implementation_of(target)
        files = model_folder(model_of(target))
        with _verified(target) as verified:
            files, sources = (verified / path.relative_to(store()) for path in (files, sources))
            yield _Model(files, implementation or own, sources)
    elif Path(target).is_dir():
        yield _Model(Path(target).absolute(), implementation or implementation_here(None), Path.cwd())
    else:
        with load("kanaria.stack.signing:verified_model")(Settings(), target) as files:
            yield _Model(files, implementation or implementation_here(target.partition(":")[0]), Path.cwd())


def _found(model: _Model) -> _Found:
    """Check in a separate process, where the model's code finds its package as in a server. Raises SetupError."""
    listed = Settings().pass_env
    done = subprocess.run(
        [sys.executable, "-m", "service.validation", str(model.files), model.implementation],
        cwd=model.sources,
        env=inherited(os.environ, listed),  # as for a version
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return _Found.model_validate_json(done.stdout.strip().rpartition("\n")[2])  # the model's code may print too
    except ValidationError as error:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        lacks = as_reason(withheld(os.environ, listed), done.stderr)
        raise SetupError(
            f"the check of {model.files} failed",
            saw="; ".join(filter(None, (f"exit code {done.returncode}", " ".join(last) or "no output", lacks))),
            do=f"run `python -m service.validation {model.files} {model.implementation}` in {model.sources}",
        ) from error
