"""A group of commands whose modules are imported only when one runs: listing them needs only Typer."""

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from contract.errors import KanariaError

# httpx's own command line: 60 modules that our commands do not use. None tells Python that there is no such module.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type] # as above


def load(target: str) -> Any:
    """The object that `target` names, in the form `module:name`."""
    module, _, name = target.partition(":")
    with _no_collection(), _no_plugins():
        return getattr(import_module(module), name)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Turn garbage collection off in the block: imports leave no garbage, and collections take a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextmanager
def _no_plugins() -> Iterator[None]:
    """Keep pydantic from searching plugins in every installed package, unless the user set its variable."""
    is_ours = _PLUGINS not in os.environ
    if is_ours:
        os.environ[_PLUGINS] = _NONE_OF_THEM
    try:
        yield
    finally:
        if is_ours:  # otherwise versions would inherit it
            os.environ.pop(_PLUGINS, None)


@dataclass(frozen=True, slots=True)
class Source:
    """The definition of a command."""

    target: str  # `module:name` of its function, or of the Typer app of a group
    help: str  # the first paragraph of its help, for the list
    needs: tuple[str, ...] = ()  # extras without which its module cannot be imported or does nothing


_PLUGINS, _NONE_OF_THEM = "PYDANTIC_DISABLE_PLUGINS", "__all__"
_NOBODY_READS = 128 + 13  # a shell's exit code for SIGPIPE


class LazyGroup(TyperGroup):
    """A group of lazy commands: give a subclass with `sources` as `cls=` of a Typer app."""

    program: ClassVar[str]  # what is typed before a command's name
    sources: ClassVar[Mapping[str, Source]]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: LazyCommand(name, source, self.program) for name, source in self.sources.items()}

    def invoke(self, ctx: Any) -> Any:
        """Run the command. On a closed pipe or an ended input Typer would exit with 1, which is a result."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the buffered rest must not fail again
            raise typer.Exit(_NOBODY_READS) from None
        except EOFError as error:
            raise RuntimeError("an input ended too early") from error


class LazyCommand(TyperCommand):
    """The entry of a command in the list. Imports the command when it runs."""

    def __init__(self, name: str, source: Source, program: str) -> None:
        super().__init__(name, help=source.help, rich_markup_mode=None)  # `[serve]` is not markup
        self.source, self._program = source, program

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """The context of the real command, which then runs in place of this one. Raises MissingExtra.

        If packages are missing, `--help` shows the command's entry in the list, and how to install them.
        """
        try:
            command = self.load()
        except KanariaError as missing:
            if parent is None or not set(parent.help_option_names).intersection(args):
                raise
            self.help = f"{self.source.help}\n\nIts options are shown once it can run: {missing.what}.\n\n{missing.do}"
            return super().make_context(info_name, args, parent, **extra)
        return command.make_context(info_name, args, parent, **extra)

    def load(self) -> Any:
        """The real command. Raises MissingExtra."""
        if self.source.needs:
            load("kanaria.extras:require")(f"{self._program} {self.name}", *self.source.needs)
        found = load(self.source.target)
        if isinstance(found, typer.Typer):
            group = typer.main.get_group(found)
            group.name = self.name
            return group
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(found)
        return typer.main.get_command(alone)
