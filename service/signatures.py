"""Signatures of a model's files: the holder of the private key vouches for every byte of them.

OpenSSF model signing with an elliptic-curve key, so that signing and verifying need no network. A server
verifies the files before it loads a model.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import yaml

from contract.errors import KanariaError

if TYPE_CHECKING:
    from model_signing import hashing

SIGNATURE_FILE = "model.sig"
_MANIFEST = "model.yaml"  # BentoML's, in the folder of every model of a store
PUBLIC_KEY_VARIABLE = "KANARIA_PUBLIC_KEY"
POLICY_VARIABLE = "KANARIA_SIGNATURES"

Policy = Literal["auto", "required", "off"]


class SignatureError(KanariaError):
    """A model that must not be loaded: changed, signed with another key, or not signed."""


def sign(folder: Path, private_key: Path) -> None:
    """Write a signature of every file in `folder` into it. Raises ValueError when the key cannot be used."""
    from model_signing import signing  # noqa: PLC0415 - half a second, paid only where signatures are used

    config = signing.Config()  # type: ignore[no-untyped-call] # as below
    config.use_elliptic_key_signer(private_key=private_key)
    config.set_hashing_config(_every_file()).sign(folder, folder / SIGNATURE_FILE)


def verify(folder: Path, public_key: Path) -> None:
    """Check that `folder` holds exactly the files that the holder of the key signed, unchanged, as the same model.

    Raises: SignatureError naming the file that differs, or the model that it was signed as.
    """
    from model_signing import verifying  # noqa: PLC0415 - see above

    signature = folder / SIGNATURE_FILE
    if not signature.exists():
        raise SignatureError(
            f"{folder} is not signed",
            saw=f"no {SIGNATURE_FILE} in it",
            do=f"sign the model (`kanaria sign`), or accept unsigned ones without {PUBLIC_KEY_VARIABLE}",
        )
    if not public_key.exists():
        raise SignatureError(
            "the public key is missing", saw=f"no file {public_key}", do=f"correct {PUBLIC_KEY_VARIABLE}"
        )
    try:
        config = verifying.Config()  # type: ignore[no-untyped-call] # as below
        config.use_elliptic_key_verifier(public_key=public_key)
        config.set_hashing_config(_every_file()).verify(folder, signature)
    except Exception as error:  # whatever is wrong with a signature, the model is not loaded
        differences = _differences(folder)
        raise SignatureError(
            "; ".join(differences) or f"{SIGNATURE_FILE} is not a signature by the key {public_key}",
            saw=f"{folder}" if differences else f"{folder}: {(str(error) or type(error).__name__).splitlines()[0]}",
            do="restore the model's files; if the change is intended, sign them again with the right key",
        ) from error
    _refuse_another(folder)


def _refuse_another(folder: Path) -> None:
    """Compare the place of verified files in the store with the tag that BentoML wrote into one of them.

    Else the signed files of one version could stand in for another's.
    """
    manifest = folder / _MANIFEST
    if not manifest.exists():  # not in a store
        return
    written = yaml.safe_load(manifest.read_bytes())
    signed_as, here = f"{written['name']}:{written['version']}", f"{folder.parent.name}:{folder.name}"
    if signed_as != here:
        raise SignatureError(
            f"the files of {here} were signed as {signed_as}",
            saw=str(manifest),
            do="restore the model's own files: a signed version may not stand in for another",
        )


def verify_as_set(folder: Path, environment: Mapping[str, str]) -> bool:
    """Verify `folder` as the variables in `environment` require.

    `KANARIA_SIGNATURES` is `auto` (the default: check where there is a signature or a key), `required`
    or `off`; `KANARIA_PUBLIC_KEY` is the path of the key.

    Returns: whether the files were verified. Raises: SignatureError.
    """
    policy, key = environment.get(POLICY_VARIABLE) or "auto", environment.get(PUBLIC_KEY_VARIABLE)
    if policy not in get_args(Policy):
        words = ", ".join(get_args(Policy))
        raise SignatureError(f"{POLICY_VARIABLE} is not understood", saw=policy, do=f"set it to one of {words}")
    has_signature = (folder / SIGNATURE_FILE).exists()
    if policy == "off" or (policy == "auto" and not has_signature and not key):
        return False
    if not key:
        raise SignatureError(
            f"{folder} cannot be verified without a public key",
            saw=f"{'a signature' if has_signature else 'no signature'}, and {PUBLIC_KEY_VARIABLE} is not set",
            do=f"set {PUBLIC_KEY_VARIABLE} to the path of the public key, or {POLICY_VARIABLE}=off",
        )
    verify(folder, Path(key))
    return True


def _every_file() -> "hashing.Config":
    """Hash every file in the folder, hidden ones too."""
    from model_signing import hashing  # noqa: PLC0415 - see above

    config = hashing.Config()  # type: ignore[no-untyped-call] # the library has no annotations here
    return config.set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)


def _differences(folder: Path) -> list[str]:
    """How the files differ from those that the signature lists. Only for the error's text: the list is not verified."""
    try:
        envelope = json.loads((folder / SIGNATURE_FILE).read_bytes())["dsseEnvelope"]
        resources = json.loads(base64.b64decode(envelope["payload"]))["predicate"]["resources"]
        signed = {resource["name"]: resource["digest"] for resource in resources}
        found = {
            resource.identifier: resource.digest.digest_hex
            for resource in _every_file().hash(folder).resource_descriptors()
        }
    except (ValueError, KeyError, TypeError):  # a signature that cannot be read lists nothing
        return []
    return [
        *(
            f"{name} was changed after it was signed"
            for name in sorted(signed.keys() & found.keys())
            if signed[name] != found[name]
        ),
        *(f"{name} is missing, and was signed" for name in sorted(signed.keys() - found.keys())),
        *(f"{name} was never signed" for name in sorted(found.keys() - signed.keys())),
    ]
