"""`kanaria sign`: sign the files of a model."""

from pathlib import Path
from typing import Annotated

import typer

from kanaria.settings import Settings
from kanaria.stack.bentos import model_tag
from kanaria.stack.signing import sign_model


def sign(
    tag: Annotated[str, typer.Argument(help="Model in the store, `name:version`.")],
    key: Annotated[
        Path | None, typer.Option(help="Private key, PEM. Default: the state folder's own, made on first use.")
    ] = None,
) -> None:
    """Sign a model's files: a server that knows the public key refuses them once a byte has changed."""
    tag = model_tag(tag)
    signed = sign_model(Settings(), tag, key)
    typer.echo(f"signed {tag}: {signed.files} files; the public key is {signed.public_key or f'that of {key}'}")
