"""Who signs models and Bentos on this machine, and which versions are verified before they run.

The keys are in the state folder. What a signature is: service/signatures.py.
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
        """How many files its signature is about."""
        found = (path for path in self.folder.rglob("*") if "__pycache__" not in path.parts)
        return sum(path.is_file() and path.name != self.signature for path in found)


@dataclass(frozen=True, slots=True)
class Signed:
    """What `sign_version` did."""

    items: tuple[Item, ...]
    public_key: Path | None  # None: the caller's own key was used


def sign_version(settings: Settings, tag: str, private_key: Path | None) -> Signed:
    """Sign the model, and the Bento with its models, of this tag, with the state folder's own key unless given one.

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
    """What is to be signed. Raises SetupError."""
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
    """The models of a Bento that lie in the store; others are fetched by its code."""
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
        verify(item.folder, public_key, signature=item.signature)  # a pair that does not fit should be found now
    _remember(settings, item)


def policy(settings: Settings) -> dict[str, str]:
    """The settings about signatures, as the process of a version reads them."""
    key = {PUBLIC_KEY_VARIABLE: str(settings.public_key.absolute())} if settings.public_key else {}
    return {POLICY_VARIABLE: settings.signatures} | key


def policy_for(settings: Settings, bento: str) -> dict[str, str]:
    """The same for a Bento that is started now. Where nothing of it is to be verified, it is not told to look again.

    Else a worker that is started after `kanaria sign` would find a signature, have no key for it, and refuse to serve.
    """
    is_for_itself_to_see = settings.signatures != "auto" or settings.public_key is not None
    if is_for_itself_to_see or is_to_be_verified(settings, bento) or not _has_all_models(bento):
        return policy(settings)
    return {POLICY_VARIABLE: "off"}


def _has_all_models(bento: str) -> bool:
    """Whether its models are in the store: its code fetches others, and whether they are signed is not known."""
    return all(Item(name, is_bento=False).is_here for name in models_of(bento))


def is_to_be_verified(settings: Settings, bento: str) -> bool:
    """Whether anything that a Bento runs is to be verified before: its code, or a model.

    One whose manifest cannot be read is: what it will run is not known, and its process says what is wrong.
    """
    if settings.signatures == "off":
        return False
    code = must_be_signed(settings, Item(bento, is_bento=True))
    try:
        named = models_of(bento)
    except SetupError:
        return True
    found = [name for name in named if must_be_signed(settings, Item(name, is_bento=False))]  # all: it remembers
    return code or bool(found)


def must_be_signed(settings: Settings, item: Item) -> bool:
    """Whether `item` may only run with a good signature.

    `auto` wants one of what has one, or had one when it was signed or served here: whoever can write the store cannot
    make it an unsigned one by deleting a file. A key that is set is for all models; a Bento that nobody signed was
    never refused for that.
    """
    if settings.signatures == "off":
        return False
    if item.is_here and os.path.lexists(item.folder / item.signature):
        _remember(settings, item)
        return True
    is_for_all = settings.public_key is not None and not item.is_bento and item.is_here
    return settings.signatures == "required" or is_for_all or was_signed(settings, item)


def was_signed(settings: Settings, item: Item) -> bool:
    """Whether it was signed or served with a signature on this machine."""
    return item.tag in _remembered(settings, item)


def key_for(settings: Settings, item: Item) -> Path:
    """The key that verifies `item`. Raises SignatureError where there is none, or no signature any more."""
    if was_signed(settings, item) and not os.path.lexists(item.folder / item.signature):
        raise SignatureError(
            f"{item.folder} is not signed any more",
            saw=f"no {item.signature} in it, and it was signed when it was last signed or served here",
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
    """The files of a model to load, verified as its server would. Raises SetupError."""
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
    with suppress(OSError):  # on a full disk the next start of the version remembers it
        private_files.close_folder(settings.root)
        write_whole(_memory(settings, item), json.dumps(sorted({*known, item.tag}), indent=1), mode=0o600)


def _remembered(settings: Settings, item: Item) -> frozenset[str]:
    """Tags of its kind. A file that cannot be read is an error: nothing is taken for unsigned on a guess."""
    memory = _memory(settings, item)
    try:
        return frozenset(map(str, json.loads(memory.read_bytes())))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(
            f"which {'Bentos' if item.is_bento else 'models'} were signed cannot be read",
            saw=f"{memory}: {error}",
            do="restore that file from a copy of the state folder, or remove it and sign them again",
        ) from error


def _memory(settings: Settings, item: Item) -> Path:
    return settings.signed_bentos if item.is_bento else settings.signed_models


def _own_keys(settings: Settings) -> tuple[Path, Path]:
    """The state folder's key pair, private and public; made when there is none."""
    private_path, public_path = settings.own_private_key, settings.own_public_key
    if not private_path.exists() or is_lost(private_path.read_bytes()):
        made = ec.generate_private_key(ec.SECP256R1())
        private_files.keep(private_path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = load_pem_private_key(private_path.read_bytes(), password=None)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not public_path.exists() or public_path.read_bytes() != public:
        write_whole(public_path, public)
    return private_path, public_path
