"""A model is loaded as it was signed; anything else is refused with the file's name."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.signatures import SIGNATURE_FILE, SignatureError, sign, verify, verify_as_set
from tests.support.keys import key_pair

pytestmark = pytest.mark.needs("serve")  # signing imports its library only when it signs

FILES = {"weights.safetensors": bytes(range(256)) * 8, "schema.json": b'{"labels": ["a"]}', "part/more.bin": b"more"}


@dataclass(frozen=True)
class Signed:
    """A signed model."""

    folder: Path
    public_key: Path


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return key_pair(tmp_path_factory.mktemp("keys"))


def write_model(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def signed(tmp_path: Path, key: tuple[Path, Path]) -> Signed:
    folder = write_model(tmp_path / "model")
    sign(folder, key[0])
    return Signed(folder, key[1])


def test_a_signed_model_is_accepted_in_any_folder(signed: Signed, tmp_path: Path) -> None:
    """The signature covers the files, not their folder's name."""
    verify(signed.folder.rename(tmp_path / "moved"), signed.public_key)


def test_signed_files_of_one_version_are_refused_as_another(tmp_path: Path, key: tuple[Path, Path]) -> None:
    """A bad version that was signed when it was new is put into the folder of the trusted one."""
    folders = [tmp_path / "digits" / version for version in ("v2", "v3")]
    for folder in folders:
        write_model(folder)
        (folder / "model.yaml").write_text(f"name: digits\nversion: {folder.name}\n")
        sign(folder, key[0])
        verify(folder, key[1])
    shutil.rmtree(folders[0])
    folders[1].rename(folders[0])
    with pytest.raises(SignatureError, match="the files of digits:v2 were signed as digits:v3"):
        verify(folders[0], key[1])


def test_a_flipped_bit_is_refused_with_the_name_of_its_file(
    tmp_path_factory: pytest.TempPathFactory, key: tuple[Path, Path]
) -> None:
    """This holds for any bit of any file."""
    folder = write_model(tmp_path_factory.mktemp("model"))
    sign(folder, key[0])

    @settings(max_examples=40)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(FILES)))
        at, bit = data.draw(st.integers(0, len(FILES[name]) - 1)), data.draw(st.integers(0, 7))
        changed = bytearray(FILES[name])
        changed[at] ^= 1 << bit
        (folder / name).write_bytes(changed)
        try:
            with pytest.raises(SignatureError, match=f"^{name} was changed after it was signed"):
                verify(folder, key[1])
        finally:
            (folder / name).write_bytes(FILES[name])

    check()


def test_an_added_file_is_refused(signed: Signed) -> None:
    """This includes hidden files and git's own files."""
    (signed.folder / ".git").mkdir()
    (signed.folder / ".git" / "hook").write_bytes(b"rm")
    with pytest.raises(SignatureError, match=r"\.git/hook was never signed"):
        verify(signed.folder, signed.public_key)


def test_a_missing_file_is_refused(signed: Signed) -> None:
    """The error names the file."""
    (signed.folder / "schema.json").unlink()
    with pytest.raises(SignatureError, match=r"schema\.json is missing"):
        verify(signed.folder, signed.public_key)


def test_a_link_to_a_file_outside_is_refused(signed: Signed, tmp_path: Path) -> None:
    """The file behind a link could change unnoticed."""
    weights = signed.folder / "weights.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    (signed.folder / "part" / "added").symlink_to(tmp_path)
    with pytest.raises(SignatureError, match=r"^part/added is a link, .*; weights\.safetensors is a link, "):
        verify(signed.folder, signed.public_key)


def test_a_folder_in_place_of_the_signature_is_refused(signed: Signed) -> None:
    (signed.folder / SIGNATURE_FILE).unlink()
    (signed.folder / SIGNATURE_FILE).mkdir()
    with pytest.raises(SignatureError, match=f"^{SIGNATURE_FILE} is not a file"):
        verify(signed.folder, signed.public_key)


def test_a_signature_by_another_key_is_refused(signed: Signed, tmp_path: Path) -> None:
    """Only the trusted key counts."""
    _, public = key_pair(tmp_path, "other")
    with pytest.raises(SignatureError, match="is not a signature by the key"):
        verify(signed.folder, public)


@pytest.mark.parametrize("rubbish", [b"", b"junk", b"{}", b"[]", b"\xff\xfe", b'{"verificationMaterial": {}}'])
def test_an_unreadable_signature_is_refused(signed: Signed, rubbish: bytes) -> None:
    """No rubbish is accepted, and none causes another kind of error."""
    (signed.folder / SIGNATURE_FILE).write_bytes(rubbish)
    with pytest.raises(SignatureError, match=SIGNATURE_FILE):
        verify(signed.folder, signed.public_key)


@pytest.mark.parametrize(
    ("policy", "is_signed", "has_key", "outcome"),
    [
        (None, False, False, "loaded"),
        (None, True, False, "refused"),  # a signature that is not verified would mislead
        (None, False, True, "refused"),
        (None, True, True, "checked"),
        ("auto", True, True, "checked"),
        ("required", False, False, "refused"),
        ("required", True, False, "refused"),
        ("required", True, True, "checked"),
        ("off", True, False, "loaded"),
        ("off", False, True, "loaded"),
        ("sometimes", True, True, "refused"),
    ],
)
def test_models_are_checked_if_there_is_a_signature_or_a_key(
    signed: Signed, policy: str | None, is_signed: bool, has_key: bool, outcome: str
) -> None:
    """`KANARIA_SIGNATURES` overrides this default."""
    if not is_signed:
        (signed.folder / SIGNATURE_FILE).unlink()
    environment = {"KANARIA_SIGNATURES": policy} if policy else {}
    environment |= {"KANARIA_PUBLIC_KEY": str(signed.public_key)} if has_key else {}
    try:
        happened = "checked" if verify_as_set(signed.folder, environment) else "loaded"
    except SignatureError:
        happened = "refused"
    assert happened == outcome


def test_a_missing_key_file_is_named(signed: Signed) -> None:
    """A mistyped path does not make the model count as verified."""
    with pytest.raises(SignatureError, match="no file /nowhere"):
        verify_as_set(signed.folder, {"KANARIA_PUBLIC_KEY": "/nowhere"})
