"""Signing on one machine: whose keys, and which servers check."""

import shutil
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.signing import checking, sign_model
from service.signatures import SIGNATURE_FILE, SignatureError, verify, verify_as_set
from tests.support.keys import key_pair

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
    (bento / "bento.yaml").write_text("services: [{name: predictor, models: [{tag: 'm:1'}]}]\n")
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    return model


def test_the_first_signature_makes_a_key_that_only_its_owner_can_read(state: Settings, store: Path) -> None:
    """The pair lies in the state folder and fits."""
    signed = sign_model(state, "m:1", None)
    assert (signed.files, stat.S_IMODE(state.own_private_key.stat().st_mode)) == (2, 0o600)
    verify(store, state.own_public_key)


def test_the_key_is_made_once(state: Settings) -> None:
    """A second model is signed by the same."""
    sign_model(state, "m:1", None)
    key = state.own_private_key.read_bytes()
    sign_model(state, "m:1", None)
    assert state.own_private_key.read_bytes() == key


def test_a_key_of_ones_own_is_used(state: Settings, store: Path, tmp_path: Path) -> None:
    """Nothing is made in the state folder then."""
    private, public = key_pair(tmp_path)
    sign_model(state, "m:1", private)
    verify(store, public)
    assert not state.own_private_key.exists()


def test_a_key_that_cannot_sign_says_how_to_get_one(state: Settings, tmp_path: Path) -> None:
    """A curve that nobody uses, no PEM, no file."""
    strange, _ = key_pair(tmp_path, curve=ec.SECP256K1())
    (tmp_path / "text").write_text("secret")
    for key in (strange, tmp_path / "text", tmp_path / "nowhere"):
        with pytest.raises(SetupError, match="openssl"):
            sign_model(state, "m:1", key)


def test_a_bento_given_for_a_model_is_understood(state: Settings) -> None:
    """Models are signed, not Bentos; the error names the model that the Bento has."""
    with pytest.raises(SetupError, match="b:1 is a Bento, its model is m:1"):
        sign_model(state, "b:1", None)


@pytest.mark.parametrize("tag", ["m", "m:2", "../m:1"])
def test_an_unknown_model_is_refused_with_those_there_are(state: Settings, tag: str) -> None:
    """A slip of the pen."""
    with pytest.raises(SetupError, match="models here: m:1"):
        sign_model(state, tag, None)


def test_signed_versions_are_checked_with_the_key_that_signed_them(state: Settings) -> None:
    """Without any setting."""
    sign_model(state, "m:1", None)
    assert checking(state, "b:1") == {
        "KANARIA_SIGNATURES": "auto",
        "KANARIA_PUBLIC_KEY": str(state.own_public_key),
    }


def test_the_first_signature_does_not_stop_an_unsigned_version(state: Settings, store: Path) -> None:
    """The state folder's key is for those that it signed, unless signatures are required."""
    shutil.copytree(store, store.with_name("2"))
    (bento,) = store.parents[2].glob("bentos/b/1")
    shutil.copytree(bento, bento.with_name("2"))
    (bento.with_name("2") / "bento.yaml").write_text("services: [{name: predictor, models: [{tag: 'm:2'}]}]\n")
    sign_model(state, "m:1", None)
    required = state.model_copy(update={"signatures": "required"})
    assert ["KANARIA_PUBLIC_KEY" in checking(each, "b:2") for each in (state, required)] == [False, True]


def test_a_signature_that_is_deleted_makes_no_unsigned_model(state: Settings, store: Path, tmp_path: Path) -> None:
    """Signed here, or served here with a signature of somebody else's: from then on it is checked."""
    sign_model(state, "m:1", None)
    elsewhere = Settings(home=tmp_path / "elsewhere", public_key=state.own_public_key)
    assert checking(elsewhere, "b:1")
    (store / SIGNATURE_FILE).unlink()
    for settings in (state, elsewhere):
        with pytest.raises(SignatureError, match="is not signed"):
            verify_as_set(store, checking(settings, "b:1"))
    sign_model(state, "m:1", None)
    assert verify_as_set(store, checking(state, "b:1"))


@pytest.mark.parametrize("content", ["", "{", "7"])
def test_what_is_known_of_signatures_is_never_guessed(state: Settings, content: str) -> None:
    state.signed_models.parent.mkdir()
    state.signed_models.write_text(content)
    with pytest.raises(SetupError, match="which models were signed cannot be read"):
        checking(state, "b:1")


def test_a_key_that_is_set_is_for_every_version(state: Settings, tmp_path: Path) -> None:
    """Whoever names a key wants nothing unsigned."""
    named = state.model_copy(update={"public_key": tmp_path / "team.pub"})
    assert checking(named, "b:1")["KANARIA_PUBLIC_KEY"] == str(tmp_path / "team.pub")
