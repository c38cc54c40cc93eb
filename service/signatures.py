"""Signs and verifies the files of a model or a Bento: the holder of the private key vouches for every byte.

It uses OpenSSF model signing with an elliptic-curve key, so signing and verifying need no network. A private copy is
verified, and the same copy is loaded: nobody can change a file between the two.
"""

import base64
import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, get_args

from contract import environment as variables
from contract.errors import KanariaError

if TYPE_CHECKING:
    from model_signing import hashing

SIGNATURE_FILE, BENTO_SIGNATURE_FILE = "model.sig", "bento.sig"
_MANIFESTS = {SIGNATURE_FILE: "model.yaml", BENTO_SIGNATURE_FILE: "bento.yaml"}  # BentoML's, in each folder of a store
_COMPILED = "__pycache__"  # Python writes them beside the code of a Bento; they are neither signed nor copied
_RESTORE = "restore the files; if the change is intended, sign them again with the right key"
_NAMED = 10  # unsigned files that a message names
PUBLIC_KEY_VARIABLE = "KANARIA_PUBLIC_KEY"
POLICY_VARIABLE = "KANARIA_SIGNATURES"

Policy = Literal["auto", "required", "off"]


class SignatureError(KanariaError):
    """A model or a Bento must not be loaded: it was changed, signed with another key, or not signed."""


def sign(folder: Path, private_key: Path, *, signature: str = SIGNATURE_FILE) -> None:
    """Write a signature of every file in `folder` into it. Raises ValueError if the key cannot be used."""
    from model_signing import signing  # noqa: PLC0415 - half a second, paid only where signatures are used

    config = signing.Config()  # type: ignore[no-untyped-call] # as below
    config.use_elliptic_key_signer(private_key=private_key)
    config.set_hashing_config(_every_file(folder, signature)).sign(folder, folder / signature)


def verify(folder: Path, public_key: Path, *, signature: str = SIGNATURE_FILE, place: Path | None = None) -> None:
    """Check that `folder` holds exactly the files that the holder of the key signed, unchanged, as the same version.

    Args:
        folder: the files.
        signature: the name of the signature file among them.
        place: the folder from which they were copied; None: they are not a copy.

    Raises: SignatureError naming the file that differs, or the version that it was signed as.
    """
    from model_signing import verifying  # noqa: PLC0415 - see above

    place = place or folder
    refuse_strangers(folder, signature=signature, place=place)
    if not (folder / signature).exists():
        raise SignatureError(
            f"{place} is not signed",
            saw=f"no {signature} in it",
            do=f"sign it (`kanaria sign`), or unset {PUBLIC_KEY_VARIABLE} to accept unsigned files",
        )
    if not public_key.exists():
        raise SignatureError(
            "the public key is missing", saw=f"no file {public_key}", do=f"correct {PUBLIC_KEY_VARIABLE}"
        )
    try:
        config = verifying.Config()  # type: ignore[no-untyped-call] # as below
        config.use_elliptic_key_verifier(public_key=public_key)
        config.set_hashing_config(_every_file(folder, signature)).verify(folder, folder / signature)
    except Exception as error:  # nothing is loaded, whatever is wrong with a signature
        differences = _differences(folder, signature)
        raise SignatureError(
            "; ".join(differences) or f"{signature} is not a signature by the key {public_key}",
            saw=f"{place}" if differences else f"{place}: {(str(error) or type(error).__name__).splitlines()[0]}",
            do=_RESTORE,
        ) from error
    _refuse_another(folder / _MANIFESTS[signature], place)


def refuse_strangers(folder: Path, *, signature: str = SIGNATURE_FILE, place: Path | None = None) -> None:
    """Refuse files that cannot have been signed: links, special files, and files that the signature does not list.

    Raises: SignatureError. If nothing is refused, nothing is proven: contents and the list are not verified here.
    """
    if found := _strangers(folder, signature):
        raise SignatureError("; ".join(found[:_NAMED]), saw=f"{place or folder}", do=_RESTORE)


def _strangers(folder: Path, signature: str) -> list[str]:
    signed, found = _listed(folder, signature), []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if _COMPILED in name.parts:
            continue
        if path.is_symlink():
            found.append(f"{name} is a link, and only files are signed")
        elif str(name) == signature or not path.is_dir():
            if not path.is_file():
                found.append(f"{name} is not a file")
            elif str(name) != signature and signed and name.as_posix() not in signed:
                found.append(f"{name} was never signed")
    return found


def _refuse_another(manifest: Path, place: Path) -> None:
    """Compare the place of verified files in the store with the tag that BentoML wrote into one of them.

    Otherwise the signed files of one version could replace those of another version.
    """
    if not manifest.exists():  # not in a store
        return
    import yaml  # noqa: PLC0415 - settings import this module, and few commands read a manifest

    written = yaml.safe_load(manifest.read_bytes())
    signed_as, here = f"{written.get('name')}:{written.get('version')}", f"{place.parent.name}:{place.name}"
    if signed_as != here:
        raise SignatureError(
            f"the files of {here} were signed as {signed_as}",
            saw=str(place / manifest.name),
            do="restore the version's own files: signed files of another version are not accepted",
        )


def copy_files(folder: Path, to: Path, *, left_free: int = 0) -> Path:
    """Copy all signed files to `to`, a folder that nobody else can write. Links stay links.

    A signature lists no sizes, so anyone who can write to the store could fill the disk. If the files do not fit, or
    would leave less than `left_free` bytes, they are refused before a byte is copied.

    Raises: OSError; then no copy is left.
    """
    size, free = _size(folder), shutil.disk_usage(to.parent).free - left_free
    if size > free:
        words = f"the copy for verification needs {_mib(size)}, and only {_mib(max(0, free))} are free for it"
        raise OSError(errno.ENOSPC, f"{words} at {to.parent}", str(folder))
    ignored = shutil.ignore_patterns(_COMPILED)
    try:
        shutil.copytree(folder, to, symlinks=True, ignore=ignored, copy_function=shutil.copyfile)
    except OSError as error:
        shutil.rmtree(to, ignore_errors=True)
        raise _first(error) from error
    return to


def _size(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if _COMPILED not in path.parts)
    return sum(path.lstat().st_size for path in files if not path.is_dir())


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _first(error: OSError) -> OSError:
    """The error of the first file. shutil collects those of all files."""
    if not isinstance(error, shutil.Error):
        return error
    source, _, words = error.args[0][0]
    return OSError(f"{source} cannot be copied: {words}")


@contextmanager
def verified(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    """The folder from which to load a model, and whether it was verified as the variables in `environment` require.

    A verified folder is a private copy, removed at the end of the block; see `verify_as_set`.
    """
    if _is_sealed(folder, environment):
        yield folder, True
    elif (key := _key_as_set(folder, environment)) is None:
        yield folder, False
    else:
        with TemporaryDirectory(prefix="kanaria-verified-") as private:
            copied = copy_files(folder, Path(private, "model"))
            verify(copied, key, place=folder)
            yield copied, True


def verify_as_set(folder: Path, environment: Mapping[str, str]) -> bool:
    """Verify `folder` as the variables in `environment` require.

    `KANARIA_SIGNATURES` is `auto` (the default: verify if there is a signature or a key), `required`
    or `off`; `KANARIA_PUBLIC_KEY` is the path of the key.

    Returns: whether the files were verified. Raises: SignatureError.
    """
    if _is_sealed(folder, environment):
        return True
    if (key := _key_as_set(folder, environment)) is None:
        return False
    verify(folder, key)
    return True


def _is_sealed(folder: Path, environment: Mapping[str, str]) -> bool:
    """Whether `folder` is in a private copy that was verified before this process started."""
    sealed = environment.get(variables.SEALED)
    return bool(sealed) and folder.resolve().is_relative_to(Path(str(sealed)).resolve())


def _key_as_set(folder: Path, environment: Mapping[str, str]) -> Path | None:
    """The key with which to verify `folder`; None if it need not be verified. Raises SignatureError."""
    policy, key = environment.get(POLICY_VARIABLE) or "auto", environment.get(PUBLIC_KEY_VARIABLE)
    if policy not in get_args(Policy):
        words = ", ".join(get_args(Policy))
        raise SignatureError(f"{POLICY_VARIABLE} is not understood", saw=policy, do=f"set it to one of {words}")
    has_signature = (folder / SIGNATURE_FILE).exists()
    if policy == "off" or (policy == "auto" and not has_signature and not key):
        return None
    if not key:
        raise SignatureError(
            f"{folder} cannot be verified without a public key",
            saw=f"{'a signature' if has_signature else 'no signature'}, and {PUBLIC_KEY_VARIABLE} is not set",
            do=f"set {PUBLIC_KEY_VARIABLE} to the path of the public key, or {POLICY_VARIABLE}=off",
        )
    return Path(key)


def _every_file(folder: Path, signature: str) -> "hashing.Config":
    """Hash every file in the folder, hidden ones too."""
    from model_signing import hashing  # noqa: PLC0415 - see above

    compiled = [str(path.relative_to(folder)) for path in folder.rglob(_COMPILED)]
    config = hashing.Config()  # type: ignore[no-untyped-call] # the library has no annotations here
    return config.set_ignored_paths(paths=[signature, *compiled], ignore_git_paths=False)


def _differences(folder: Path, signature: str) -> list[str]:
    """How the files differ from the signature's list. Only for the error's text, because the list is not verified."""
    signed = _listed(folder, signature)
    if not signed:
        return []
    try:
        found = {
            resource.identifier: resource.digest.digest_hex
            for resource in _every_file(folder, signature).hash(folder).resource_descriptors()
        }
    except (OSError, ValueError):
        return []
    return [
        *(
            f"{name} was changed after it was signed"
            for name in sorted(signed.keys() & found.keys())
            if signed[name] != found[name]
        ),
        *(f"{name} is missing, and was signed" for name in sorted(signed.keys() - found.keys())),
    ]


def _listed(folder: Path, signature: str) -> dict[str, str]:
    """The digests of the files that the signature lists, by name: not verified, and empty if unreadable."""
    try:
        envelope = json.loads((folder / signature).read_bytes())["dsseEnvelope"]
        resources = json.loads(base64.b64decode(envelope["payload"]))["predicate"]["resources"]
        return {resource["name"]: resource["digest"] for resource in resources}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
