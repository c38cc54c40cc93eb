"""A private copy of what a version runs, verified before any of it is read, and the only place that it is read from.

Whoever can write BentoML's store can change a file after it was verified there. Nobody but the owner can write into the
folder of the copy, which is BentoML's home for this one process.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.bentos import COUNTERS, store
from kanaria.stack.signing import Item, is_to_be_verified, key_for, models_here, must_be_signed
from service.signatures import SignatureError, copy_files, verify


@contextmanager
def verified_store(settings: Settings, tag: str) -> Iterator[Path]:
    """The store in which what the Bento `tag` runs is as it was signed; the usual one where nothing is to be verified.

    Raises SetupError.
    """
    if not is_to_be_verified(settings, tag):
        yield store()
        return
    with TemporaryDirectory(prefix="kanaria-verified-") as private:
        try:
            seal(settings, tag, store(), home := Path(private, "home"))
        except SignatureError as error:
            raise SetupError(error.what, saw=error.saw, do=error.do) from error
        yield home


def seal(settings: Settings, tag: str, store: Path, home: Path) -> None:
    """Make `home` anew: with copies of the Bento `tag` and of its signed models, and links to all else in the store.

    BENTOML_HOME must be `store`. Raises SignatureError, SetupError, OSError.
    """
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700, parents=True)
    bento = Item(tag, is_bento=True)
    copied = _copy(bento, store, home)
    if must_be_signed(settings, bento):
        verify(copied, key_for(settings, bento), signature=bento.signature, place=bento.folder)
    own = [copied]
    for name in models_here(tag, copy=copied):
        model = Item(name, is_bento=False)
        if must_be_signed(settings, model):
            own.append(_copy(model, store, home))
            verify(own[-1], key_for(settings, model), place=model.folder)
    _link_rest(store, home, own)


def _copy(item: Item, store: Path, home: Path) -> Path:
    to = home / item.folder.relative_to(store)
    to.parent.mkdir(parents=True, exist_ok=True)
    return copy_files(item.folder, to)


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
