"""`kanaria sign`: signs the files of a version."""

from pathlib import Path
from typing import Annotated

import typer

from kanaria.settings import Settings
from kanaria.stack.signing import sign_version


def sign(
    tag: Annotated[
        str, typer.Argument(help="Bento or model in the store, `name:version`. Signs both if both have this tag.")
    ],
    key: Annotated[
        Path | None, typer.Option(help="Private key, PEM. Default: the state folder's own, created on first use.")
    ] = None,
) -> None:
    """Sign a Bento's code and models, or a model. A server refuses them if a byte has changed."""
    signed = sign_version(Settings(), tag, key)
    said = ", ".join(f"{item.name} ({item.files()} files)" for item in signed.items)
    typer.echo(f"signed {said}; the public key is {signed.public_key or f'that of {key}'}")
