"""Signs models and Bentos on this machine, and decides which versions are verified before they run.

The keys are in the state folder. service/signatures.py defines a signature.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from contract.files import is_lost, write_whole
from kanaria import private_files
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.bentos import bento_folder, bento_tag, bento_tags, model_folder, model_tag, model_tags, models_of
from service.signatures import (
    BENTO_SIGNATURE_FILE,
    POLICY_VARIABLE,
    PUBLIC_KEY_VARIABLE,
    SIGNATURE_FILE,
    SignatureError,
    sign,
    verified,
    verify,
)


@dataclass(frozen=True, slots=True)
class Item:
    """A model or a Bento of the store."""

    tag: str
    is_bento: bool

    @property
    def folder(self) -> Path:
        """Its files. Raises SetupError."""
        return bento_folder(self.tag) if self.is_bento else model_folder(self.tag)

    @property
    def is_here(self) -> bool:
        """Whether its files are in the store."""
        with suppress(SetupError):
            return self.folder.is_dir()
        return False

    @property
    def signature(self) -> str:
        """The name of the file with its signature."""
        return BENTO_SIGNATURE_FILE if self.is_bento else SIGNATURE_FILE

    @property
    def name(self) -> str:
        return f"the {'Bento' if self.is_bento else 'model'} {self.tag}"

    def files(self) -> int:
        """The number of files that its signature covers."""
        found = (path for path in self.folder.rglob("*") if "__pycache__" not in path.parts)
        return sum(path.is_file() and path.name != self.signature for path in found)


@dataclass(frozen=True, slots=True)
class Signed:
    """What `sign_version` did."""

    items: tuple[Item, ...]
    public_key: Path | None  # None: the caller's own key was used


def sign_version(settings: Settings, tag: str, private_key: Path | None) -> Signed:
    """Sign the model of this tag, or the Bento with its models. The default key is the state folder's own.

    Raises SetupError.
    """
    items = _named(tag)
    public_key = None
    if private_key is None:
        private_key, public_key = _own_keys(settings)
    for item in items:
        _sign(settings, item, private_key, public_key)
    return Signed(items, public_key)


def _named(tag: str) -> tuple[Item, ...]:
    """The models and the Bento that `tag` names. Raises SetupError."""
    items: list[Item] = []
    with suppress(SetupError):
        bento = bento_tag(tag)
        items = [Item(bento, is_bento=True), *(Item(model, is_bento=False) for model in _models_here(bento))]
    try:
        model = Item(model_tag(tag), is_bento=False)
    except SetupError as error:
        if items:
            return tuple(items)
        raise SetupError(
            error.what.replace("no model", "neither a model nor a Bento"),
            saw=f"{error.saw}; Bentos here: {', '.join(bento_tags()) or 'none'}",
            do=error.do,
        ) from error
    return tuple(items if model in items else [*items, model])


def _models_here(bento: str) -> list[str]:
    """The models of a Bento that are in the store. Its code fetches the others."""
    known = model_tags()
    return [model for model in models_of(bento) if model in known]


def _sign(settings: Settings, item: Item, private_key: Path, public_key: Path | None) -> None:
    try:
        sign(item.folder, private_key, signature=item.signature)
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(
            f"{item.tag} cannot be signed",
            saw=f"{private_key}: {error}",
            do="give an unencrypted elliptic-curve key (P-256, P-384 or P-521) as PEM, "
            "for example from `openssl ecparam -name prime256v1 -genkey -noout`",
        ) from error
    if public_key:
        verify(item.folder, public_key, signature=item.signature)  # finds a key pair that does not match
    _remember(settings, item)


def policy(settings: Settings) -> dict[str, str]:
    """The variables about signatures for the process of a version."""
    key = {PUBLIC_KEY_VARIABLE: str(settings.public_key.absolute())} if settings.public_key else {}
    return {POLICY_VARIABLE: settings.signatures} | key


def policy_for(settings: Settings, bento: str) -> dict[str, str]:
    """The same for a Bento that is started now. If nothing of it must be verified, verification is off.

    Otherwise a worker that starts after `kanaria sign` would find a signature, lack the key for it, and not serve.
    """
    is_for_itself_to_see = settings.signatures != "auto" or settings.public_key is not None
    if is_for_itself_to_see or is_to_be_verified(settings, bento) or not _has_all_models(bento):
        return policy(settings)
    return {POLICY_VARIABLE: "off"}


def _has_all_models(bento: str) -> bool:
    """Whether all its models are in the store. Its code fetches the others, which may be signed."""
    return all(Item(name, is_bento=False).is_here for name in models_of(bento))


def is_to_be_verified(settings: Settings, bento: str) -> bool:
    """Whether the code or a model of a Bento must be verified before it runs.

    True if the manifest cannot be read: what it would run is unknown, and its process will report the error.
    """
    if settings.signatures == "off":
        return False
    code = must_be_signed(settings, Item(bento, is_bento=True))
    try:
        named = models_of(bento)
    except SetupError:
        return True
    # Every model is checked, because each call records signed models.
    found = [name for name in named if must_be_signed(settings, Item(name, is_bento=False))]
    return code or bool(found)


def must_be_signed(settings: Settings, item: Item) -> bool:
    """Whether `item` may run only with a valid signature.

    `auto` requires one if the item has one, or had one when it was signed or served here: deleting the file does not
    make it an unsigned item. KANARIA_PUBLIC_KEY requires one for all models; a Bento that was never signed may run.
    """
    if settings.signatures == "off":
        return False
    if item.is_here and os.path.lexists(item.folder / item.signature):
        _remember(settings, item)
        return True
    is_for_all = settings.public_key is not None and not item.is_bento and item.is_here
    return settings.signatures == "required" or is_for_all or was_signed(settings, item)


def was_signed(settings: Settings, item: Item) -> bool:
    """Whether it was signed, or served with a signature, on this machine."""
    return item.tag in _remembered(settings, item)


def key_for(settings: Settings, item: Item) -> Path:
    """The key that verifies `item`. Raises SignatureError if there is no key, or the signature was removed."""
    if was_signed(settings, item) and not os.path.lexists(item.folder / item.signature):
        raise SignatureError(
            f"{item.folder} is not signed, but it was before",
            saw=f"no {item.signature} in it, but it had one when it was last signed or served here",
            do="restore its files from a copy that you trust; sign it again (`kanaria sign`) only if you know what "
            "changed in them",
        )
    if settings.public_key:
        return settings.public_key.absolute()
    if settings.own_public_key.exists():
        return settings.own_public_key
    raise SignatureError(
        f"{item.name} cannot be verified without a public key",
        saw=f"{PUBLIC_KEY_VARIABLE} is not set, and there is no {settings.own_public_key}",
        do=f"set {PUBLIC_KEY_VARIABLE} to the path of its signer's public key",
    )


@contextmanager
def verified_model(settings: Settings, tag: str) -> Iterator[Path]:
    """The files of a model, verified as its server would verify them. Raises SetupError."""
    item = Item(tag, is_bento=False)
    variables = {POLICY_VARIABLE: "off"}
    try:
        if must_be_signed(settings, item):
            variables = {POLICY_VARIABLE: "required", PUBLIC_KEY_VARIABLE: str(key_for(settings, item))}
        with verified(item.folder, variables) as (files, _):
            yield files
    except SignatureError as error:
        raise SetupError(error.what, saw=error.saw, do=error.do) from error


def _remember(settings: Settings, item: Item) -> None:
    known = _remembered(settings, item)
    if item.tag in known:
        return
    with suppress(OSError):  # a full disk: the next start of the version records it
        private_files.close_folder(settings.root)
        write_whole(_memory(settings, item), json.dumps(sorted({*known, item.tag}), indent=1), mode=0o600)


def _remembered(settings: Settings, item: Item) -> frozenset[str]:
    """The recorded tags of its kind. Raises SetupError if they cannot be read: an item could then pass as unsigned."""
    memory = _memory(settings, item)
    try:
        return frozenset(map(str, json.loads(memory.read_bytes())))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(
            f"the record of signed {'Bentos' if item.is_bento else 'models'} cannot be read",
            saw=f"{memory}: {error}",
            do="restore that file from a copy of the state folder, or remove it and sign them again",
        ) from error


def _memory(settings: Settings, item: Item) -> Path:
    return settings.signed_bentos if item.is_bento else settings.signed_models


def _own_keys(settings: Settings) -> tuple[Path, Path]:
    """The state folder's key pair, private and public; created if there is none."""
    private_path, public_path = settings.own_private_key, settings.own_public_key
    if not private_path.exists() or is_lost(private_path.read_bytes()):
        made = ec.generate_private_key(ec.SECP256R1())
        private_files.keep(private_path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = load_pem_private_key(private_path.read_bytes(), password=None)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not public_path.exists() or public_path.read_bytes() != public:
        write_whole(public_path, public)
    return private_path, public_path
