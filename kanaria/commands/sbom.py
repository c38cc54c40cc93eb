"""`kanaria sbom`: the contents of a Bento or of this installation."""

from pathlib import Path
from typing import Annotated

import typer

from contract.files import write_whole
from kanaria.stack.bentos import bento_tag
from kanaria.stack.bill import as_json, of_bento, of_installation


def sbom(
    tag: Annotated[
        str | None, typer.Argument(help="Bento in the store, `name:version`. Default: this installation.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write. Default: standard output.")] = None,
) -> None:
    """Write a bill of materials (CycloneDX 1.6, JSON): packages, models, and the hash of every file."""
    text = as_json(of_bento(bento_tag(tag)) if tag else of_installation())
    if output is None:
        typer.echo(text)
        return
    write_whole(output, f"{text}\n", is_public=True)
    typer.echo(f"written: {output}")
