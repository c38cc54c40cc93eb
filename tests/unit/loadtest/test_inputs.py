"""The inputs of a load test: the samples file, the host and the API key."""

from pathlib import Path

import pytest

from loadtest.errors import LoadTestError, OutDirError, SamplesError, TargetError
from loadtest.paths import make_out_dir
from loadtest.samples import Sample, load_samples
from loadtest.target import check_host, read_api_key

GOOD = '{"features": [1, 2.5], "label": "3"}'


def test_samples_are_rows_ready_to_send_with_their_labels(tmp_path: Path) -> None:
    """Each line becomes one encoded row and one label, in order."""
    path = tmp_path / "samples.jsonl"
    path.write_text(f'{GOOD}\n{{"features": [0, -1], "label": "x"}}\n', "utf-8")
    assert load_samples(path) == (Sample(b"[1.0,2.5]", "3"), Sample(b"[0.0,-1.0]", "x"))


def test_a_missing_samples_file_says_what_to_do(tmp_path: Path) -> None:
    """The error names the path and how to give another one."""
    with pytest.raises(SamplesError) as caught:
        load_samples(tmp_path / "absent.jsonl")
    assert "absent.jsonl" in caught.value.saw
    assert "--samples" in caught.value.do


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not JSON", "line 2"),
        ('{"features": [1, 2]}', "label"),
        ('{"features": [], "label": "3"}', "features"),
        ('{"features": [1, NaN], "label": "3"}', "features.1"),
        ('{"features": [1, 2], "label": null}', "label"),
        ('{"features": [1, 2], "label": "3", "more": 1}', "more"),
        ('{"features": [1], "label": "3"}', "1 features, the first line has 2"),
    ],
)
def test_a_line_that_is_not_a_sample_is_reported(tmp_path: Path, line: str, words: str) -> None:
    """The error names the line and the key."""
    path = tmp_path / "samples.jsonl"
    path.write_text(f"{GOOD}\n{line}\n", "utf-8")
    with pytest.raises(SamplesError) as caught:
        load_samples(path)
    assert words in caught.value.saw


def test_an_empty_samples_file_is_refused(tmp_path: Path) -> None:
    """Without samples there is nothing to send."""
    path = tmp_path / "samples.jsonl"
    path.touch()
    with pytest.raises(SamplesError, match="empty"):
        load_samples(path)


@pytest.mark.parametrize("host", ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:9", "https://127.8.9.1"])
def test_this_machine_may_be_loaded(host: str) -> None:
    """Every loopback address is allowed, with or without a trailing slash."""
    assert check_host(f"{host}/", allow_remote=False) == host


@pytest.mark.parametrize("host", ["http://example.com", "http://10.0.0.1:8080", "http://127.0.0.1.example.com"])
def test_another_machine_must_be_allowed(host: str) -> None:
    """Without --allow-remote the load stays on this machine; with it the host is accepted."""
    with pytest.raises(TargetError, match="another machine"):
        check_host(host, allow_remote=False)
    assert check_host(host, allow_remote=True) == host


@pytest.mark.parametrize("host", [None, "", "127.0.0.1:8080", "ftp://127.0.0.1", "http://127.0.0.1:port"])
def test_a_host_that_is_not_a_url_is_refused(host: str | None) -> None:
    """The error shows an example of a valid one."""
    with pytest.raises(TargetError) as caught:
        check_host(host, allow_remote=True)
    assert "http://127.0.0.1:8080" in caught.value.do


def test_the_api_key_comes_from_the_file_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is given is used first, then the variable; without both no key is sent."""
    file = tmp_path / "key"
    file.write_text("from-file\n", "utf-8")
    monkeypatch.setenv("KANARIA_API_KEY", "from-variable")
    assert (read_api_key(file), read_api_key(None)) == ("from-file", "from-variable")
    monkeypatch.delenv("KANARIA_API_KEY")
    assert read_api_key(None) is None


@pytest.mark.parametrize("content", [None, "\n"])
def test_an_api_key_file_without_a_key_is_refused(tmp_path: Path, content: str | None) -> None:
    """Missing or empty: an error, not a run of 401s."""
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content, "utf-8")
    with pytest.raises(LoadTestError, match="API key file"):
        read_api_key(file)


def test_results_of_an_earlier_run_are_deleted(tmp_path: Path) -> None:
    """Else the old summary could be mistaken for the new one."""
    (tmp_path / "summary.json").touch()
    assert list(make_out_dir(tmp_path).iterdir()) == []


def test_a_results_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file of that name causes our own error."""
    (tmp_path / "file").touch()
    with pytest.raises(OutDirError):
        make_out_dir(tmp_path / "file")
