"""Signing on one machine: whose keys, and which servers check."""

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

pytestmark = pytest.mark.needs("serve")  # signing imports its library when it signs


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
    """The pair lies in the state folder and fits."""
    signed = sign_version(state, "m:1", None)
    assert (signed.items[0].files(), stat.S_IMODE(state.own_private_key.stat().st_mode)) == (2, 0o600)
    verify(store, state.own_public_key)


def test_the_key_is_made_once(state: Settings) -> None:
    """A second model is signed by the same."""
    sign_version(state, "m:1", None)
    key = state.own_private_key.read_bytes()
    sign_version(state, "m:1", None)
    assert state.own_private_key.read_bytes() == key


def test_a_key_of_ones_own_is_used(state: Settings, store: Path, tmp_path: Path) -> None:
    """Nothing is made in the state folder then."""
    private, public = key_pair(tmp_path)
    sign_version(state, "m:1", private)
    verify(store, public)
    assert not state.own_private_key.exists()


def test_a_key_that_cannot_sign_says_how_to_get_one(state: Settings, tmp_path: Path) -> None:
    """A curve that nobody uses, no PEM, no file."""
    strange, _ = key_pair(tmp_path, curve=ec.SECP256K1())
    (tmp_path / "text").write_text("secret")
    for key in (strange, tmp_path / "text", tmp_path / "nowhere"):
        with pytest.raises(SetupError, match="openssl"):
            sign_version(state, "m:1", key)


def test_a_bento_is_signed_with_its_models(state: Settings, store: Path) -> None:
    """What Python compiles beside its code is no part of it."""
    signed = sign_version(state, "b:1", None)
    assert [(item.name, item.files()) for item in signed.items] == [("the Bento b:1", 2), ("the model m:1", 2)]
    (bento,) = store.parents[2].glob("bentos/b/1")
    (bento / "src" / "__pycache__" / "another.pyc").write_bytes(b"compiled")
    verify(bento, state.own_public_key, signature=BENTO_SIGNATURE_FILE)


@pytest.mark.parametrize("tag", ["n", "m:2", "../m:1"])
def test_an_unknown_model_is_refused_with_those_there_are(state: Settings, tag: str) -> None:
    """A slip of the pen."""
    with pytest.raises(SetupError, match="models here: m:1; Bentos here: b:1"):
        sign_version(state, tag, None)


def seal_as_started(state: Settings, tmp_path: Path, tag: str = "b:1") -> Path:
    """Seal as the process of a version does, and give the store that it would read."""
    home = tmp_path / "sealed"
    seal(state, tag, tmp_path, home)
    return home


def test_signed_versions_are_verified_without_any_setting(state: Settings, tmp_path: Path) -> None:
    """And what runs is a copy that nobody else can write to."""
    assert not is_to_be_verified(state, "b:1")
    sign_version(state, "m:1", None)
    assert is_to_be_verified(state, "b:1")
    home = seal_as_started(state, tmp_path)
    assert (home / "models/m/1/weights.safetensors").read_bytes() == b"weights"
    assert [path for path in home.glob("*/*/1/**/*") if path.is_symlink() or path.name == "__pycache__"] == []
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_what_changes_after_it_was_verified_is_not_what_runs(state: Settings, store: Path, tmp_path: Path) -> None:
    """Files in the store that are swapped between the check and the load: the first read is the only one."""
    sign_version(state, "b:1", None)
    home = seal_as_started(state, tmp_path)
    (store / "weights.safetensors").write_bytes(b"swapped")
    (code,) = tmp_path.glob("bentos/b/1/src/service.py")
    code.write_text("import os\n")
    assert (home / "models/m/1/weights.safetensors").read_bytes() == b"weights"
    assert (home / "bentos/b/1/src/service.py").read_text() == "answer = 1\n"


def test_a_file_that_is_swapped_while_it_is_copied_is_refused(
    state: Settings, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was copied is what is verified, not what lay there before."""
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
    """The model is as it was signed."""
    sign_version(state, "b:1", None)
    (bento,) = tmp_path.glob("bentos/b/1")
    with (bento / name).open("a") as file:
        file.write("# more\n")
    with pytest.raises(SignatureError, match=f"^{name} was (changed after it was|never) signed"):
        seal_as_started(state, tmp_path)


# All that Python imports, or that it runs when it starts.
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
def test_nothing_that_was_not_signed_is_beside_signed_code(state: Settings, tmp_path: Path, name: str) -> None:
    """Compiled files, which are imported without a source, extension modules, which win over one, hooks."""
    sign_version(state, "b:1", None)
    planted = tmp_path / "bentos" / "b" / "1" / "src" / name
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_bytes(b"planted")
    with pytest.raises(SignatureError, match=re.escape(os.path.normpath(Path("src", name)))):
        seal(state, "b:1", tmp_path, tmp_path / "home")


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_compiled_file_beside_a_signed_source_is_not_what_runs(
    state: Settings, tmp_path: Path, is_sealed: bool
) -> None:
    """Python would take it as it is: one says by itself that its source need not be looked at."""
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


def test_the_signed_code_of_one_version_does_not_stand_in_for_another(state: Settings, tmp_path: Path) -> None:
    (bento,) = tmp_path.glob("bentos/b/1")
    shutil.copytree(bento, bento.with_name("2"))
    (bento.with_name("2") / "bento.yaml").write_text(BENTO.replace("version: '1'", "version: '2'"))
    for tag in ("b:1", "b:2"):
        sign_version(state, tag, None)
    shutil.rmtree(bento)
    bento.with_name("2").rename(bento)
    with pytest.raises(SignatureError, match="the files of b:1 were signed as b:2"):
        seal_as_started(state, tmp_path)


def test_a_manifest_that_is_swapped_names_no_other_model(state: Settings, store: Path, tmp_path: Path) -> None:
    """An unsigned Bento's list of models is read from the copy that runs."""
    sign_version(state, "m:1", None)
    (store / "weights.safetensors").write_bytes(b"swapped")
    with pytest.raises(SignatureError, match=r"weights\.safetensors was changed"):
        seal_as_started(state, tmp_path)


def test_the_first_signature_does_not_stop_an_unsigned_version(state: Settings, store: Path) -> None:
    """The state folder's key is for those that it signed, unless signatures are required."""
    shutil.copytree(store, store.with_name("2"))
    (bento,) = store.parents[2].glob("bentos/b/1")
    shutil.copytree(bento, bento.with_name("2"))
    (bento.with_name("2") / "bento.yaml").write_text(BENTO.replace("1", "2"))
    sign_version(state, "b:1", None)
    required = state.model_copy(update={"signatures": "required"})
    assert [is_to_be_verified(each, "b:2") for each in (state, required)] == [False, True]


def test_a_bento_that_nobody_signed_runs_with_its_signed_model(state: Settings, tmp_path: Path) -> None:
    """As before Bentos were signed; where signatures are required, not."""
    sign_version(state, "m:1", None)
    assert seal_as_started(state, tmp_path).exists()
    with pytest.raises(SignatureError, match="b/1 is not signed"):
        seal_as_started(state.model_copy(update={"signatures": "required"}), tmp_path)


@pytest.mark.parametrize("name", ["m:1", "b:1"])
def test_a_signature_that_is_deleted_makes_nothing_unsigned(name: str, state: Settings, tmp_path: Path) -> None:
    """Signed here, or served here with a signature of somebody else's: from then on it is verified."""
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


def test_a_signature_that_nobody_can_verify_is_refused(state: Settings, tmp_path: Path) -> None:
    """It would mislead."""
    private, _ = key_pair(tmp_path)
    sign_version(state, "m:1", private)
    with pytest.raises(SignatureError, match="the model m:1 cannot be verified without a public key"):
        seal_as_started(state, tmp_path)
    assert not is_to_be_verified(state.model_copy(update={"signatures": "off"}), "b:1")


def test_a_model_is_read_from_the_copy_that_was_verified(state: Settings, store: Path) -> None:
    """By `kanaria optimise` and `kanaria validate`; what is not signed from its place."""
    with verified_model(state, "m:1") as files:
        assert files == store
    sign_version(state, "m:1", None)
    with verified_model(state, "m:1") as files:
        (store / "weights.safetensors").write_bytes(b"swapped")
        assert (files / "weights.safetensors").read_bytes() == b"weights"
    with pytest.raises(SetupError, match=r"weights\.safetensors was changed"), verified_model(state, "m:1"):
        pass


@pytest.mark.parametrize("content", ["", "{", "7"])
def test_what_is_known_of_signatures_is_never_guessed(state: Settings, content: str) -> None:
    state.signed_models.parent.mkdir()
    state.signed_models.write_text(content)
    with pytest.raises(SetupError, match="the record of signed models cannot be read"):
        is_to_be_verified(state, "b:1")


def test_a_key_that_is_set_is_for_every_model(state: Settings, tmp_path: Path) -> None:
    """Whoever names a key wants no unsigned one."""
    _, public = key_pair(tmp_path, "team")
    with pytest.raises(SignatureError, match="m/1 is not signed"):
        seal_as_started(state.model_copy(update={"public_key": public}), tmp_path)


@pytest.mark.parametrize(
    "manifest", [None, "models: [", "[]", "models: [{x: 1}]\n"], ids=["none", "yaml", "list", "tag"]
)
@pytest.mark.parametrize("name", ["b:1", "m:1"])
def test_a_manifest_that_cannot_be_read_switches_no_check_off(
    name: str, manifest: str | None, state: Settings, tmp_path: Path
) -> None:
    """Whoever breaks it for the moment of the start would else have his own code run."""
    sign_version(state, name, None)
    path = tmp_path / "bentos" / "b" / "1" / "bento.yaml"
    path.unlink()
    if manifest is not None:
        path.write_text(manifest)
    assert is_to_be_verified(state, "b:1")
    assert SEAL_OPTION in server_command(state, "b:1", 1)
    with pytest.raises((SignatureError, SetupError)):
        seal_as_started(state, tmp_path)


def test_a_signed_bento_that_is_not_there_is_verified_once_it_is(state: Settings, tmp_path: Path) -> None:
    sign_version(state, "b:1", None)
    (bento,) = tmp_path.glob("bentos/b/1")
    bento.rename(tmp_path / "hidden")
    assert SEAL_OPTION in server_command(state, "b:1", 1)
    with pytest.raises(SignatureError, match="the Bento b:1 is missing, and it may run only as it was signed"):
        seal_as_started(state, tmp_path)


def test_a_signed_model_that_is_not_there_is_refused(state: Settings, store: Path, tmp_path: Path) -> None:
    """It could be put there, unsigned, once all was verified; so could one that must be signed."""
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
def test_what_is_put_into_the_store_later_is_no_model_of_the_sealed_bento(
    gone: str, state: Settings, tmp_path: Path
) -> None:
    """A model that nobody ever signed here, and that was not there when the Bento was verified."""
    sign_version(state, "b:1", None)
    elsewhere = Settings(home=tmp_path / "elsewhere", public_key=state.own_public_key)
    (tmp_path / gone).rename(tmp_path / "hidden")
    home = seal_as_started(elsewhere, tmp_path)
    (tmp_path / "hidden").rename(tmp_path / gone)
    assert not (home / "models" / "m" / "1").exists()


def test_other_models_of_the_store_are_seen_from_the_sealed_one(state: Settings, store: Path, tmp_path: Path) -> None:
    """Whatever its code loads besides."""
    shutil.copytree(store, tmp_path / "models" / "other" / "1")
    shutil.copytree(store, store.with_name("2"))
    sign_version(state, "b:1", None)
    home = seal_as_started(state, tmp_path)
    assert [(home / "models" / name / "weights.safetensors").exists() for name in ("other/1", "m/2")] == [True, True]


def test_the_server_of_verified_models_takes_no_unsigned_one(state: Settings, store: Path, tmp_path: Path) -> None:
    """From wherever its code gets it; where a model was not verified, as its settings say."""
    assert seal(state, "b:1", tmp_path, tmp_path / "sealed") == {}
    sign_version(state, "m:1", None)
    variables = seal(state, "b:1", tmp_path, tmp_path / "sealed")
    (store / "model.sig").unlink()
    with pytest.raises(SignatureError, match="is not signed"):
        verify_as_set(store, variables)


def test_a_file_too_many_is_refused_before_a_byte_is_copied(state: Settings, tmp_path: Path) -> None:
    """A sparse file would fill the disk; and nothing that was refused is left."""
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


def test_a_signed_file_that_was_made_huge_does_not_fill_the_disk(state: Settings, store: Path, tmp_path: Path) -> None:
    """Its name is in the signature, which knows no sizes: it is refused before a byte is copied, with both sizes."""
    sign_version(state, "b:1", None)
    os.truncate(store / "weights.safetensors", 2**42)
    with pytest.raises(OSError, match=r"needs 4,194,304 MiB, and only [\d,]+ MiB are free for it") as raised:
        seal_as_started(state, tmp_path)
    assert (raised.value.errno, (tmp_path / "sealed").exists()) == (errno.ENOSPC, False)


def test_a_disk_that_is_full_in_the_middle_of_a_copy_keeps_nothing_of_it(
    store: Path, small_disk: SmallDisk, tmp_path: Path
) -> None:
    """Small files take more room than their sizes; the first one that did not fit is named."""
    for number in range(4000):
        (store / f"{number}.json").write_text("1")
    to = small_disk.folder / "copy"
    with pytest.raises(OSError, match=r"\.json cannot be copied: .*No space left on device") as raised:
        copy_files(store, to)
    assert (str(raised.value).count("cannot be copied"), to.exists()) == (1, False)
    shutil.copytree(tmp_path / "bentos", to)  # there is room again


def test_who_lost_a_signature_is_not_told_to_switch_the_check_off(state: Settings, tmp_path: Path) -> None:
    sign_version(state, "b:1", None)
    (tmp_path / "bentos" / "b" / "1" / BENTO_SIGNATURE_FILE).unlink()
    with pytest.raises(SignatureError) as refused:
        seal_as_started(state, tmp_path)
    assert "restore its files" in refused.value.do
    assert "KANARIA_" not in refused.value.do
