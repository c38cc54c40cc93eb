"""Signing on one machine: whose keys are used, and which servers verify."""

import errno
import os
import py_compile
import re
import shutil
import stat
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.sealing import seal
from kanaria.stack.signing import is_to_be_verified, sign_version, verified_model
from kanaria.stack.version_process import SEAL_OPTION, server_command
from service.signatures import BENTO_SIGNATURE_FILE, SignatureError, copy_files, sign, verify, verify_as_set
from tests.support.keys import key_pair
from tests.support.small_disk import SmallDisk

BENTO = "name: b\nversion: '1'\nservices: [{name: predictor, models: [{tag: 'm:1'}]}]\n"

pytestmark = pytest.mark.needs("serve")  # its library is imported only when something is signed


@pytest.fixture
def state(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "state")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A BentoML store with the model m:1 and the Bento b:1 built with it."""
    model, bento = tmp_path / "models" / "m" / "1", tmp_path / "bentos" / "b" / "1"
    for folder in (model, bento):
        folder.mkdir(parents=True)
    (model / "model.yaml").write_text("name: m\nversion: '1'\n")
    (model / "weights.safetensors").write_bytes(b"weights")
    (bento / "bento.yaml").write_text(BENTO)
    (bento / "src" / "__pycache__").mkdir(parents=True)
    (bento / "src" / "service.py").write_text("answer = 1\n")
    (bento / "src" / "__pycache__" / "service.pyc").write_bytes(b"compiled")
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    return model


def test_the_first_signature_makes_a_key_that_only_its_owner_can_read(state: Settings, store: Path) -> None:
    """Both keys are in the state folder and belong together."""
    signed = sign_version(state, "m:1", None)
    assert (signed.items[0].files(), stat.S_IMODE(state.own_private_key.stat().st_mode)) == (2, 0o600)
    verify(store, state.own_public_key)


def test_the_key_is_made_once(state: Settings) -> None:
    """A second model is signed with the same key."""
    sign_version(state, "m:1", None)
    key = state.own_private_key.read_bytes()
    sign_version(state, "m:1", None)
    assert state.own_private_key.read_bytes() == key


def test_a_configured_key_is_used(state: Settings, store: Path, tmp_path: Path) -> None:
    """Then no key is made in the state folder."""
    private, public = key_pair(tmp_path)
    sign_version(state, "m:1", private)
    verify(store, public)
    assert not state.own_private_key.exists()


def test_an_unusable_key_is_refused_with_advice_how_to_make_one(state: Settings, tmp_path: Path) -> None:
    """It has an uncommon curve, is not PEM, or does not exist."""
    strange, _ = key_pair(tmp_path, curve=ec.SECP256K1())
    (tmp_path / "text").write_text("secret")
    for key in (strange, tmp_path / "text", tmp_path / "nowhere"):
        with pytest.raises(SetupError, match="openssl"):
            sign_version(state, "m:1", key)


def test_a_bento_is_signed_with_its_models(state: Settings, store: Path) -> None:
    """The signature leaves out what Python compiles beside the code."""
    signed = sign_version(state, "b:1", None)
    assert [(item.name, item.files()) for item in signed.items] == [("the Bento b:1", 2), ("the model m:1", 2)]
    (bento,) = store.parents[2].glob("bentos/b/1")
    (bento / "src" / "__pycache__" / "another.pyc").write_bytes(b"compiled")
    verify(bento, state.own_public_key, signature=BENTO_SIGNATURE_FILE)


@pytest.mark.parametrize("tag", ["n", "m:2", "../m:1"])
def test_an_unknown_model_is_refused_with_the_list_of_existing_ones(state: Settings, tag: str) -> None:
    """The name may be a typing mistake."""
    with pytest.raises(SetupError, match="models here: m:1; Bentos here: b:1"):
        sign_version(state, tag, None)


def seal_as_started(state: Settings, tmp_path: Path, tag: str = "b:1") -> Path:
    """Seal the version as its process does, and return the store that the process would read."""
    home = tmp_path / "sealed"
    seal(state, tag, tmp_path, home)
    return home


def test_signed_versions_are_verified_without_any_setting(state: Settings, tmp_path: Path) -> None:
    """The version runs from a copy that nobody else can write."""
    assert not is_to_be_verified(state, "b:1")
    sign_version(state, "m:1", None)
    assert is_to_be_verified(state, "b:1")
    home = seal_as_started(state, tmp_path)
    assert (home / "models/m/1/weights.safetensors").read_bytes() == b"weights"
    assert [path for path in home.glob("*/*/1/**/*") if path.is_symlink() or path.name == "__pycache__"] == []
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_change_after_the_verification_does_not_reach_the_version(
    state: Settings, store: Path, tmp_path: Path
) -> None:
    """The files in the store are replaced between verification and loading, and are never read a second time."""
    sign_version(state, "b:1", None)
    home = seal_as_started(state, tmp_path)
    (store / "weights.safetensors").write_bytes(b"swapped")
    (code,) = tmp_path.glob("bentos/b/1/src/service.py")
    code.write_text("import os\n")
    assert (home / "models/m/1/weights.safetensors").read_bytes() == b"weights"
    assert (home / "bentos/b/1/src/service.py").read_text() == "answer = 1\n"


def test_a_file_replaced_during_the_copy_is_refused(
    state: Settings, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is verified, not the earlier content of the store."""
    sign_version(state, "b:1", None)
    weights = store / "weights.safetensors"
    read = shutil.copyfile

    def swapping(source: str, target: str, **options: object) -> str:
        if Path(source) == weights:
            weights.write_bytes(b"swapped")
        return read(source, target, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr("service.signatures.shutil.copyfile", swapping)
    with pytest.raises(SignatureError, match=r"weights\.safetensors was changed"):
        seal_as_started(state, tmp_path)


@pytest.mark.parametrize("name", ["src/service.py", "bento.yaml", "src/added.py"])
def test_a_changed_code_file_is_refused_by_its_name(name: str, state: Settings, tmp_path: Path) -> None:
    """The model is still as it was signed."""
    sign_version(state, "b:1", None)
    (bento,) = tmp_path.glob("bentos/b/1")
    with (bento / name).open("a") as file:
        file.write("# more\n")
    with pytest.raises(SignatureError, match=f"^{name} was (changed after it was|never) signed"):
        seal_as_started(state, tmp_path)


# Everything that Python imports, or runs when it starts.
IMPORTED = (
    "service.py",
    "more.pyc",
    "more/__init__.pyc",
    f"service{EXTENSION_SUFFIXES[0]}",
    f"more{EXTENSION_SUFFIXES[-1]}",
    "more.pth",
    "more.zip",
    ".more.py",
    "sitecustomize.py",
    "usercustomize.pyc",
    "../env/docker/setup_script",
    "../env/python/wheels/more-1-py3-none-any.whl",
    "bentofile.yaml",
)


@pytest.mark.parametrize("name", IMPORTED)
def test_unsigned_files_beside_signed_code_are_refused(state: Settings, tmp_path: Path, name: str) -> None:
    """Compiled files are imported without a source.

    Extension modules take precedence over a source, and hooks run at the start.
    """
    sign_version(state, "b:1", None)
    planted = tmp_path / "bentos" / "b" / "1" / "src" / name
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_bytes(b"planted")
    with pytest.raises(SignatureError, match=re.escape(os.path.normpath(Path("src", name)))):
        seal(state, "b:1", tmp_path, tmp_path / "home")


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_compiled_file_beside_a_signed_source_does_not_run(state: Settings, tmp_path: Path, is_sealed: bool) -> None:
    """Python would use the compiled file, which claims that its source need not be checked."""
    bento = tmp_path / "bentos" / "b" / "1"
    (tmp_path / "other.py").write_text("answer = 2\n")
    compiled = cache_from_source(str(bento / "src" / "service.py"))
    py_compile.compile(
        str(tmp_path / "other.py"), compiled, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    sign_version(state, "b:1", None)
    seal(state, "b:1", tmp_path, tmp_path / "home")
    sources = (tmp_path / "home" / "bentos" / "b" / "1" if is_sealed else bento) / "src"
    words = [sys.executable, "-c", "import service; print(service.answer)"]
    done = subprocess.run(words, cwd=sources, env={}, capture_output=True, text=True, check=True)
    assert done.stdout == ("1\n" if is_sealed else "2\n")


def test_the_signed_code_of_one_version_cannot_replace_that_of_another(state: Settings, tmp_path: Path) -> None:
    (bento,) = tmp_path.glob("bentos/b/1")
    shutil.copytree(bento, bento.with_name("2"))
    (bento.with_name("2") / "bento.yaml").write_text(BENTO.replace("version: '1'", "version: '2'"))
    for tag in ("b:1", "b:2"):
        sign_version(state, tag, None)
    shutil.rmtree(bento)
    bento.with_name("2").rename(bento)
    with pytest.raises(SignatureError, match="the files of b:1 were signed as b:2"):
        seal_as_started(state, tmp_path)


def test_a_replaced_manifest_cannot_name_another_model(state: Settings, store: Path, tmp_path: Path) -> None:
    """The models of an unsigned Bento are read from the copy that runs."""
    sign_version(state, "m:1", None)
    (store / "weights.safetensors").write_bytes(b"swapped")
    with pytest.raises(SignatureError, match=r"weights\.safetensors was changed"):
        seal_as_started(state, tmp_path)


def test_the_first_signature_does_not_stop_an_unsigned_version(state: Settings, store: Path) -> None:
    """The key of the state folder verifies what it signed, unless signatures are required for all."""
    shutil.copytree(store, store.with_name("2"))
    (bento,) = store.parents[2].glob("bentos/b/1")
    shutil.copytree(bento, bento.with_name("2"))
    (bento.with_name("2") / "bento.yaml").write_text(BENTO.replace("1", "2"))
    sign_version(state, "b:1", None)
    required = state.model_copy(update={"signatures": "required"})
    assert [is_to_be_verified(each, "b:2") for each in (state, required)] == [False, True]


def test_an_unsigned_bento_runs_with_its_signed_model(state: Settings, tmp_path: Path) -> None:
    """This was the rule before Bentos were signed. Where signatures are required, it is refused."""
    sign_version(state, "m:1", None)
    assert seal_as_started(state, tmp_path).exists()
    with pytest.raises(SignatureError, match="b/1 is not signed"):
        seal_as_started(state.model_copy(update={"signatures": "required"}), tmp_path)


@pytest.mark.parametrize("name", ["m:1", "b:1"])
def test_a_deleted_signature_does_not_make_a_version_unsigned(name: str, state: Settings, tmp_path: Path) -> None:
    """Once a version was signed here, or served here with another owner's signature, it is always verified."""
    sign_version(state, name, None)
    elsewhere = Settings(home=tmp_path / "elsewhere", public_key=state.own_public_key)
    assert is_to_be_verified(elsewhere, "b:1")
    (signature,) = tmp_path.glob(f"*/{name.replace(':', '/')}/*.sig")
    signature.unlink()
    for settings in (state, elsewhere):
        with pytest.raises(SignatureError, match="is not signed"):
            seal_as_started(settings, tmp_path)
    sign_version(state, name, None)
    assert seal_as_started(state, tmp_path)


def test_a_signature_that_cannot_be_verified_is_refused(state: Settings, tmp_path: Path) -> None:
    """An unverified signature would mislead."""
    private, _ = key_pair(tmp_path)
    sign_version(state, "m:1", private)
    with pytest.raises(SignatureError, match="the model m:1 cannot be verified without a public key"):
        seal_as_started(state, tmp_path)
    assert not is_to_be_verified(state.model_copy(update={"signatures": "off"}), "b:1")


def test_a_model_is_read_from_the_verified_copy(state: Settings, store: Path) -> None:
    """`kanaria optimise` and `kanaria validate` do this. An unsigned model is read from the store."""
    with verified_model(state, "m:1") as files:
        assert files == store
    sign_version(state, "m:1", None)
    with verified_model(state, "m:1") as files:
        (store / "weights.safetensors").write_bytes(b"swapped")
        assert (files / "weights.safetensors").read_bytes() == b"weights"
    with pytest.raises(SetupError, match=r"weights\.safetensors was changed"), verified_model(state, "m:1"):
        pass


@pytest.mark.parametrize("content", ["", "{", "7"])
def test_a_damaged_record_of_signed_models_is_an_error(state: Settings, content: str) -> None:
    state.signed_models.parent.mkdir()
    state.signed_models.write_text(content)
    with pytest.raises(SetupError, match="the record of signed models cannot be read"):
        is_to_be_verified(state, "b:1")


def test_a_configured_key_applies_to_every_model(state: Settings, tmp_path: Path) -> None:
    """A person who configures a key wants no unsigned model."""
    _, public = key_pair(tmp_path, "team")
    with pytest.raises(SignatureError, match="m/1 is not signed"):
        seal_as_started(state.model_copy(update={"public_key": public}), tmp_path)


@pytest.mark.parametrize(
    "manifest", [None, "models: [", "[]", "models: [{x: 1}]\n"], ids=["none", "yaml", "list", "tag"]
)
@pytest.mark.parametrize("name", ["b:1", "m:1"])
def test_an_unreadable_manifest_disables_no_check(
    name: str, manifest: str | None, state: Settings, tmp_path: Path
) -> None:
    """Otherwise an attacker could damage it during the start and run other code."""
    sign_version(state, name, None)
    path = tmp_path / "bentos" / "b" / "1" / "bento.yaml"
    path.unlink()
    if manifest is not None:
        path.write_text(manifest)
    assert is_to_be_verified(state, "b:1")
    assert SEAL_OPTION in server_command(state, "b:1", 1)
    with pytest.raises((SignatureError, SetupError)):
        seal_as_started(state, tmp_path)


def test_a_missing_signed_bento_is_verified_once_it_appears(state: Settings, tmp_path: Path) -> None:
    sign_version(state, "b:1", None)
    (bento,) = tmp_path.glob("bentos/b/1")
    bento.rename(tmp_path / "hidden")
    assert SEAL_OPTION in server_command(state, "b:1", 1)
    with pytest.raises(SignatureError, match="the Bento b:1 is missing, and it may run only as it was signed"):
        seal_as_started(state, tmp_path)


def test_a_missing_signed_model_is_refused(state: Settings, store: Path, tmp_path: Path) -> None:
    """An unsigned one could be put there after the verification. The same holds for a model that must be signed."""
    sign_version(state, "m:1", None)
    store.rename(tmp_path / "hidden")
    required = Settings(home=tmp_path / "elsewhere", signatures="required", public_key=state.own_public_key)
    assert is_to_be_verified(state, "b:1")
    with pytest.raises(SignatureError, match="the model m:1 is missing"):
        seal_as_started(state, tmp_path)
    sign(tmp_path / "bentos" / "b" / "1", state.own_private_key, signature=BENTO_SIGNATURE_FILE)
    with pytest.raises(SignatureError, match="the model m:1 is missing"):
        seal_as_started(required, tmp_path)


@pytest.mark.parametrize("gone", ["models", "models/m", "models/m/1"])
def test_a_model_added_later_does_not_enter_the_sealed_bento(gone: str, state: Settings, tmp_path: Path) -> None:
    """The model was never signed here and was missing when the Bento was verified."""
    sign_version(state, "b:1", None)
    elsewhere = Settings(home=tmp_path / "elsewhere", public_key=state.own_public_key)
    (tmp_path / gone).rename(tmp_path / "hidden")
    home = seal_as_started(elsewhere, tmp_path)
    (tmp_path / "hidden").rename(tmp_path / gone)
    assert not (home / "models" / "m" / "1").exists()


def test_a_sealed_bento_can_read_other_models_of_the_store(state: Settings, store: Path, tmp_path: Path) -> None:
    """Its code may load more than its own models."""
    shutil.copytree(store, tmp_path / "models" / "other" / "1")
    shutil.copytree(store, store.with_name("2"))
    sign_version(state, "b:1", None)
    home = seal_as_started(state, tmp_path)
    assert [(home / "models" / name / "weights.safetensors").exists() for name in ("other/1", "m/2")] == [True, True]


def test_the_server_of_verified_models_refuses_unsigned_models(state: Settings, store: Path, tmp_path: Path) -> None:
    """This holds wherever its code gets the model. Without a verified model, the server follows its own settings."""
    assert seal(state, "b:1", tmp_path, tmp_path / "sealed") == {}
    sign_version(state, "m:1", None)
    variables = seal(state, "b:1", tmp_path, tmp_path / "sealed")
    (store / "model.sig").unlink()
    with pytest.raises(SignatureError, match="is not signed"):
        verify_as_set(store, variables)


def test_an_extra_file_is_refused_before_anything_is_copied(state: Settings, tmp_path: Path) -> None:
    """A sparse file would fill the disk. Nothing of a refused version remains."""
    sign_version(state, "b:1", None)
    extra = tmp_path / "bentos" / "b" / "1" / "src" / "huge"
    with extra.open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(SignatureError, match=r"^src/huge was never signed"):
        seal_as_started(state, tmp_path)
    extra.unlink()
    (tmp_path / "bentos" / "b" / "1" / "src" / "service.py").write_text("import os\n")
    with pytest.raises(SignatureError, match=r"^src/service.py was changed"):
        seal_as_started(state, tmp_path)
    assert not (tmp_path / "sealed").exists()


def test_a_signed_file_grown_to_a_huge_size_does_not_fill_the_disk(
    state: Settings, store: Path, tmp_path: Path
) -> None:
    """Signatures contain no sizes. The file is refused before a byte is copied, and the error has both sizes."""
    sign_version(state, "b:1", None)
    os.truncate(store / "weights.safetensors", 2**42)
    with pytest.raises(OSError, match=r"needs 4,194,304 MiB, and only [\d,]+ MiB are free for it") as raised:
        seal_as_started(state, tmp_path)
    assert (raised.value.errno, (tmp_path / "sealed").exists()) == (errno.ENOSPC, False)


def test_a_disk_that_fills_up_during_a_copy_keeps_no_part_of_it(
    store: Path, small_disk: SmallDisk, tmp_path: Path
) -> None:
    """Small files take more space than their sizes. The error names the first file that did not fit."""
    for number in range(4000):
        (store / f"{number}.json").write_text("1")
    to = small_disk.folder / "copy"
    with pytest.raises(OSError, match=r"\.json cannot be copied: .*No space left on device") as raised:
        copy_files(store, to)
    assert (str(raised.value).count("cannot be copied"), to.exists()) == (1, False)
    shutil.copytree(tmp_path / "bentos", to)  # there is space again


def test_a_lost_signature_brings_no_advice_to_disable_the_check(state: Settings, tmp_path: Path) -> None:
    sign_version(state, "b:1", None)
    (tmp_path / "bentos" / "b" / "1" / BENTO_SIGNATURE_FILE).unlink()
    with pytest.raises(SignatureError) as refused:
        seal_as_started(state, tmp_path)
    assert "restore its files" in refused.value.do
    assert "KANARIA_" not in refused.value.do
