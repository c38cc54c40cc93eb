"""Makes a private copy of what a version runs, and verifies it. The version reads only the copy.

A file in BentoML's store could change after it was verified there. Only the owner can write to the folder of the copy,
which is BentoML's home for this one process.
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

_LEFT_FREE = 256 * 2**20  # bytes that stay free on the disk for the ledger, logs and metrics


@contextmanager
def verified_store(settings: Settings, tag: str) -> Iterator[Path]:
    """A store with the Bento `tag` as it was signed; the usual store if nothing must be verified.

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
    """Create `home` with verified copies of the Bento `tag` and its signed models, and links to the rest of the store.

    BENTOML_HOME must be `store`.

    Returns: if all models were verified, the variables that make the server refuse other models; otherwise empty.
    Raises: SignatureError, SetupError, OSError; no copy is left then.
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
    for model in models:  # a real folder, not a link to the store, where files could be added later
        (home / "models" / model.tag.partition(":")[0]).mkdir(parents=True, exist_ok=True)
    _link_rest(store, home, [*own, *verified])
    if not models or len(verified) < len(models):
        return {}
    return {POLICY_VARIABLE: "required", PUBLIC_KEY_VARIABLE: str(key_for(settings, models[0]))}


def _copied(settings: Settings, item: Item, store: Path, home: Path) -> Path | None:
    """The verified copy of an item; None if it does not have to be signed."""
    if not must_be_signed(settings, item):
        return None
    if not item.is_here:
        raise SignatureError(
            f"{item.name} is missing, and it may run only as it was signed",
            saw=f"nothing of it in {store}",
            do="restore it from a copy that you trust (`bentoml models import`)",
        )
    key = key_for(settings, item)
    refuse_strangers(item.folder, signature=item.signature)  # before anything large is copied
    copied = _copy(item, store, home)
    verify(copied, key, signature=item.signature, place=item.folder)
    return copied


def _copy(item: Item, store: Path, home: Path) -> Path:
    if not item.is_here:
        raise SetupError(f"{item.name} is missing", saw=f"nothing of it in {store}", do="build it, or correct the tag")
    to = home / item.folder.relative_to(store)
    to.parent.mkdir(parents=True, exist_ok=True)
    return copy_files(item.folder, to, left_free=_LEFT_FREE)


def _link_rest(store: Path, home: Path, own: Sequence[Path]) -> None:
    """Link everything in `store` that `home` does not have itself, also inside its folders."""
    for entry in store.iterdir():
        target = home / entry.name
        if target in own or entry.name.startswith(COUNTERS):
            continue
        if target.is_dir():
            _link_rest(entry, target, own)
        else:
            target.symlink_to(entry.absolute())
