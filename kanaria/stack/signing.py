"""Who signs models on this machine, and how the servers here check them.

The keys are in the state folder. What a signature is: service/signatures.py.
"""

import json
from contextlib import suppress
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

from contract.files import write_whole
from kanaria import private_files
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.bentos import model_folder, model_of
from service.signatures import (
    POLICY_VARIABLE,
    PUBLIC_KEY_VARIABLE,
    SIGNATURE_FILE,
    SignatureError,
    sign,
    verify,
    verify_as_set,
)


@dataclass(frozen=True, slots=True)
class Signed:
    """What `sign_model` did."""

    files: int
    public_key: Path | None  # None: the caller's own key was used


def sign_model(settings: Settings, tag: str, private_key: Path | None) -> Signed:
    """Sign the files of a model in the store, with the state folder's own key unless given one. Raises SetupError."""
    folder = model_folder(tag)
    public_key = None
    if private_key is None:
        private_key, public_key = _own_keys(settings)
    try:
        sign(folder, private_key)
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(
            f"{tag} cannot be signed",
            saw=f"{private_key}: {error}",
            do="give an unencrypted elliptic-curve key (P-256, P-384 or P-521) as PEM, "
            "for example from `openssl ecparam -name prime256v1 -genkey -noout`",
        ) from error
    if public_key:
        verify(folder, public_key)  # a pair that does not fit should be found now, not by a server
    _remember(settings, tag)
    files = sum(path.is_file() and path.name != SIGNATURE_FILE for path in folder.rglob("*"))
    return Signed(files, public_key)


def checking(settings: Settings, bento: str) -> dict[str, str]:
    """The environment that makes the server of a Bento check its model.

    The state folder's own key is meant for signed models: the first signature must not stop an unsigned
    version that serves already. `KANARIA_SIGNATURES=required` closes that door. A model that was signed once is checked
    from then on: whoever can write the store cannot make it an unsigned one by deleting a file.
    """
    return _checking(settings, is_signed=_is_or_was_signed(settings, bento))


def check_signature(settings: Settings, folder: Path) -> None:
    """Check the files of a model as its server would. Raises SetupError."""
    is_signed = (folder / SIGNATURE_FILE).exists()
    try:
        verify_as_set(folder, _checking(settings, is_signed=is_signed))
    except SignatureError as error:
        raise SetupError(error.what, saw=error.saw, do=error.do) from error


def _checking(settings: Settings, *, is_signed: bool) -> dict[str, str]:
    key = settings.public_key
    if key is None and settings.own_public_key.exists() and (settings.signatures == "required" or is_signed):
        key = settings.own_public_key
    return {POLICY_VARIABLE: settings.signatures} | ({PUBLIC_KEY_VARIABLE: str(key.absolute())} if key else {})


def _is_or_was_signed(settings: Settings, bento: str) -> bool:
    """Whether a Bento's model has a signature, or had one when it was signed or served here."""
    try:
        model = model_of(bento)
        is_signed = (model_folder(model) / SIGNATURE_FILE).exists()
    except SetupError:
        return False  # its server will report what is missing
    if is_signed:
        _remember(settings, model)
    return is_signed or model in _remembered(settings)


def _remember(settings: Settings, model: str) -> None:
    known = _remembered(settings)
    if model in known:
        return
    with suppress(OSError):  # on a full disk the next start of the version remembers it
        private_files.close_folder(settings.root)
        write_whole(settings.signed_models, json.dumps(sorted({*known, model}), indent=1), mode=0o600)


def _remembered(settings: Settings) -> frozenset[str]:
    """Tags of models. A file that cannot be read is an error: nothing is taken for unsigned on a guess."""
    try:
        return frozenset(map(str, json.loads(settings.signed_models.read_bytes())))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(
            "which models were signed cannot be read",
            saw=f"{settings.signed_models}: {error}",
            do="restore that file from a copy of the state folder, or remove it and sign the models again",
        ) from error


def _own_keys(settings: Settings) -> tuple[Path, Path]:
    """The state folder's key pair, private and public; made when there is none."""
    private_path, public_path = settings.own_private_key, settings.own_public_key
    if not private_path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        private_files.keep(private_path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = load_pem_private_key(private_path.read_bytes(), password=None)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not public_path.exists() or public_path.read_bytes() != public:
        write_whole(public_path, public)
    return private_path, public_path
