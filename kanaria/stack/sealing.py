"""A private copy of what a version runs, verified before any of it is read, and the only place that it is read from.

Whoever can write BentoML's store can change a file after it was verified there. Nobody but the owner can write into the
folder of the copy, which is BentoML's home for this one process.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.bentos import COUNTERS, models_of, store
from kanaria.stack.signing import Item, is_to_be_verified, key_for, must_be_signed
from kanaria.stack.temporary_folders import temporary_folder
from service.signatures import (
    POLICY_VARIABLE,
    PUBLIC_KEY_VARIABLE,
    SignatureError,
    copy_files,
    refuse_strangers,
    verify,
)

_LEFT_FREE = 256 * 2**20  # bytes of the disk: for the ledger, logs and metrics


@contextmanager
def verified_store(settings: Settings, tag: str) -> Iterator[Path]:
    """The store in which what the Bento `tag` runs is as it was signed; the usual one where nothing is to be verified.

    Raises SetupError.
    """
    if not is_to_be_verified(settings, tag):
        yield store()
        return
    with temporary_folder(settings) as private:
        try:
            seal(settings, tag, store(), home := private / "home")
        except SignatureError as error:
            raise SetupError(error.what, saw=error.saw, do=error.do) from error
        yield home


def seal(settings: Settings, tag: str, store: Path, home: Path) -> dict[str, str]:
    """Make `home` anew: with copies of the Bento `tag` and of its signed models, and links to all else in the store.

    BENTOML_HOME must be `store`. Returns the variables by which its server refuses models from elsewhere where all of
    its models were verified. Raises SignatureError, SetupError, OSError; no copy is left then.
    """
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700, parents=True)
    try:
        return _seal(settings, tag, store, home)
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise


def _seal(settings: Settings, tag: str, store: Path, home: Path) -> dict[str, str]:
    bento = Item(tag, is_bento=True)
    own = [_copied(settings, bento, store, home) or _copy(bento, store, home)]
    models = [Item(name, is_bento=False) for name in models_of(tag, copy=own[0])]
    verified = [copy for model in models if (copy := _copied(settings, model, store, home))]
    for model in models:  # a folder of its own, into which nobody puts another version's files later
        (home / "models" / model.tag.partition(":")[0]).mkdir(parents=True, exist_ok=True)
    _link_rest(store, home, [*own, *verified])
    if not models or len(verified) < len(models):
        return {}
    return {POLICY_VARIABLE: "required", PUBLIC_KEY_VARIABLE: str(key_for(settings, models[0]))}


def _copied(settings: Settings, item: Item, store: Path, home: Path) -> Path | None:
    """The verified copy of what must be signed; None for all else."""
    if not must_be_signed(settings, item):
        return None
    if not item.is_here:
        raise SignatureError(
            f"{item.name} is missing, and it may only run as it was signed",
            saw=f"nothing of it in {store}",
            do="restore it from a copy that you trust (`bentoml models import`)",
        )
    key = key_for(settings, item)
    refuse_strangers(item.folder, signature=item.signature)  # before anything of any size is copied
    copied = _copy(item, store, home)
    verify(copied, key, signature=item.signature, place=item.folder)
    return copied


def _copy(item: Item, store: Path, home: Path) -> Path:
    if not item.is_here:
        raise SetupError(
            f"{item.name} is not there", saw=f"nothing of it in {store}", do="build it, or correct the tag"
        )
    to = home / item.folder.relative_to(store)
    to.parent.mkdir(parents=True, exist_ok=True)
    return copy_files(item.folder, to, left_free=_LEFT_FREE)


def _link_rest(store: Path, home: Path, own: Sequence[Path]) -> None:
    """Link in `home` what lies in `store` besides, also next to what is its own."""
    for entry in store.iterdir():
        target = home / entry.name
        if target in own or entry.name.startswith(COUNTERS):
            continue
        if target.is_dir():
            _link_rest(entry, target, own)
        else:
            target.symlink_to(entry.absolute())
