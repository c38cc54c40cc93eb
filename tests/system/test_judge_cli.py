"""`kanaria judge` alone, on counts from any source."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rollout.control.calibration import HISTORY_S
from rollout.judge import JudgeConfig, Pair, Window, own_noise
from rollout.judge.jsonl import judgement_object
from rollout.judge.judge import Judge
from rollout.signals.catalogue import catalogue
from tests.support.children import started
from tests.support.paths import ROOT


def judge(*arguments: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kanaria", "judge", *arguments],
        input=lines,
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def window(end_s: float, canary_bad: int, *, signal: str = "errors") -> str:
    counts = {"stable": {"bad": 2, "total": 1800}, "canary": {"bad": canary_bad, "total": 200}}
    return json.dumps({"end_s": end_s, "window_s": 5, "signal": signal, **counts}) + "\n"


HEALTHY = "".join(window(5.0 * n, 0) for n in range(1, 40))
BAD = "".join(window(5.0 * n, 20) for n in range(1, 5))


@pytest.mark.parametrize(
    ("lines", "verdict", "exit_code"),
    [(HEALTHY, "pass", 0), (BAD, "fail", 1), ("", "no_data", 3), (window(5.0, 0), "inconclusive", 3)],
    ids=["healthy", "bad", "empty", "too little"],
)
def test_the_verdict_is_the_exit_code(lines: str, verdict: str, exit_code: int) -> None:
    """A CI job needs only the exit code; the output is JSON."""
    done = judge("-", lines=lines)
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (exit_code, verdict)


def test_counts_may_come_from_a_file(tmp_path: Path) -> None:
    """The answer has every documented field."""
    (tmp_path / "counts.jsonl").write_text(BAD)
    answer = json.loads(judge(str(tmp_path / "counts.jsonl")).stdout)
    assert {"verdict", "signals", "reason"} <= answer.keys()
    fields = {"verdict", "log_e", "threshold", "stable_ratio", "canary_ratio", "excess_upper", "canary_requests"}
    assert fields | {"more_requests_needed", "decided_at_s"} <= answer["signals"]["errors"].keys()


def test_a_trace_has_one_object_per_window() -> None:
    """People can see when it was decided."""
    lines = judge("-", "--trace", lines=BAD).stdout.splitlines()
    traced = [json.loads(line) for line in lines[:4]]
    assert [at["end_s"] for at in traced] == [5.0, 10.0, 15.0, 20.0]
    assert traced[-1]["verdict"] == "fail"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json\n", "line 2"),
        (window(10.0, 300), "300 bad of only 200"),
        (window(7.0, 0), "the window overlaps the one before"),
        (window(1.0, 0), "time goes back"),
        (window(10.0, 0, signal="latency:"), "latency:100"),
        (window(10.0, 0, signal="horoscope"), "horoscope"),
    ],
    ids=["not JSON", "impossible counts", "overlap", "time goes back", "missing key", "unknown signal"],
)
def test_a_malformed_line_is_named(line: str, words: str) -> None:
    """The error has the line number, the field and the reason, with exit code 2 and no stack trace."""
    done = judge("-", lines=window(5.0, 0) + line)
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


def test_a_stream_is_judged_as_it_arrives() -> None:
    """With --trace each window is answered before the next one is sent."""
    command = [sys.executable, "-m", "kanaria", "judge", "-", "--trace"]
    with started(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(window(5.0, 0))
        for end_s in (5.0, 10.0):
            process.stdin.write(window(end_s + 5, 0))  # a window is complete when the next one starts
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["end_s"] == end_s
        process.stdin.close()
        process.wait(120)


def noisy(seed: int, begin_s: float, windows: int, canary: int) -> list[Window]:
    """Failures in clusters of four, as retries cause them; each version has its own."""
    rng = np.random.default_rng(seed)
    return [
        Window(
            end_s=begin_s + 5.0 * n,
            window_s=5.0,
            signal="errors",
            stable=Pair(4 * int(rng.poisson(2)), 900),
            canary=Pair(4 * int(rng.poisson(0.3)) if canary else 0, canary),
        )
        for n in range(1, windows + 1)
    ]


def as_lines(windows: list[Window]) -> str:
    return "".join(json.dumps(as_line(window)) + "\n" for window in windows)


def as_line(window: Window) -> dict[str, object]:
    when = {"end_s": window.end_s, "window_s": window.window_s, "signal": window.signal}
    return {**when, "stable": window.stable._asdict(), "canary": window.canary._asdict()}


def test_a_history_calibrates_the_evidence_as_in_a_release(tmp_path: Path) -> None:
    """Noise and failures of the half hour before are used: the numbers equal those of the judge in a release."""
    before, after = noisy(1, 0.0, 700, 0), noisy(2, 3500.0, 60, 100)
    (tmp_path / "before.jsonl").write_text(as_lines(before))
    done = judge("-", "--history", str(tmp_path / "before.jsonl"), lines=as_lines(after))

    recent = [window for window in before if window.end_s >= before[-1].end_s - HISTORY_S]
    known = sum((window.stable for window in recent), Pair(0, 0))
    noise = own_noise(recent)
    assert noise.clusters > 2
    released = Judge(JudgeConfig(rules=catalogue().rules), {"errors": noise}, {"errors": known})
    released.observe(after)
    assert json.loads(done.stdout) == judgement_object(released.judgement(next_weight=1.0))
    assert f"errors {noise.blips:.2g}" in done.stderr


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (HEALTHY, "the history ends after the first window has begun"),
        ("", "has no windows"),
        (window(5.0, 300), "line 1: canary: 300 bad of only 200"),
        (None, "cannot be read"),
    ],
    ids=["too late", "empty", "impossible counts", "no file"],
)
def test_an_unusable_history_is_refused(tmp_path: Path, history: str | None, words: str) -> None:
    """Data from after the start of the release must not influence how it is judged."""
    if history is not None:
        (tmp_path / "before.jsonl").write_text(history)
    done = judge("-", "--history", str(tmp_path / "before.jsonl"), lines=HEALTHY)
    assert (done.returncode, words in done.stderr, done.stdout) == (2, True, ""), done.stderr


def test_a_small_step_passes_sooner() -> None:
    """The proof is for the weight that the release wants to move to."""
    few = "".join(window(5.0 * n, 0) for n in range(1, 4))
    verdicts = {weight: json.loads(judge("-", "--weight", weight, lines=few).stdout) for weight in ("5", "100")}
    assert [verdicts[weight]["verdict"] for weight in ("5", "100")] == ["pass", "inconclusive"]
    assert "at 5 %" in verdicts["5"]["reason"]
    assert [judge("-", "--weight", weight, lines=few).returncode for weight in ("0", "101", "nan")] == [2, 2, 2]


def test_a_warm_up_is_not_judged() -> None:
    """The verdict is the same as without the warm-up, however bad that was."""
    cold = BAD + "".join(window(5.0 * n, 0) for n in range(5, 45))
    warm = "".join(cold.splitlines(keepends=True)[4:])
    assert json.loads(judge("-", lines=cold).stdout)["verdict"] == "fail"
    assert judge("-", "--warmup", "20", lines=cold).stdout == judge("-", lines=warm).stdout
    traced = judge("-", "--warmup", "20", "--trace", lines=cold).stdout.splitlines()[:5]
    assert [json.loads(line)["verdict"] for line in traced] == ["no_data"] * 4 + ["inconclusive"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(HEALTHY.encode()), "gunzip"),
        (bytes(range(256)) * 10, "line 1: the line: it is not JSON"),
        (b"end_s,window_s,signal\n5,5,errors\n", "'end_s,window_s,signal"),
        (b"[" * 1_000_000, "longer than 100,000 bytes"),
        (HEALTHY.encode("utf-16"), "line 1: the line: it is not JSON"),
        (
            json.dumps([json.loads(line) for line in HEALTHY.splitlines()]).encode(),
            "line 1: the line: write keys with values",
        ),
    ],
    ids=["gzip", "binary", "CSV", "a long line", "UTF-16", "one array"],
)
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """The message is short whatever the file contains, and nothing that looks like a verdict is printed."""
    (tmp_path / "counts").write_bytes(content)
    done = judge(str(tmp_path / "counts"))
    assert (done.returncode, words in done.stderr, done.stdout) == (2, True, ""), done.stderr
    assert len(done.stderr) < 600


@pytest.mark.parametrize("file", ["/", "/no/such/file"])
def test_a_path_without_a_file_is_refused(file: str) -> None:
    """The exit code is 2, with the path and the reason."""
    done = judge(file)
    assert (done.returncode, done.stderr.startswith(f"{file} cannot be read")) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("redirection", "code", "words"),
    [("<&-", 2, "standard input cannot be read"), ("--trace <{file} | head -n 1 >&2", 3, '"verdict"')],
    ids=["closed input", "closed output"],
)
def test_a_closed_pipe_is_not_a_verdict(tmp_path: Path, redirection: str, code: int, words: str) -> None:
    """Exit code 1 would mean that the canary failed."""
    (tmp_path / "counts.jsonl").write_text("".join(window(5.0 * n, 0) for n in range(1, 2000)))
    line = f"{sys.executable} -m kanaria judge - {redirection.format(file=tmp_path / 'counts.jsonl')}"
    shell = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr


def costs(windows: int, more: float) -> str:
    rng, lines = np.random.default_rng(4), []
    for i in range(1, windows + 1):
        line: dict[str, object] = {"end_s": 5.0 * i, "window_s": 5, "signal": "cost"}
        for arm, count, excess in (("stable", 450, 0.0), ("canary", 50, more)):
            drawn = np.clip(rng.gamma(2, 1, count) + excess, 0, 10)
            line[arm] = {"count": count, "sum": drawn.sum(), "sum_of_squares": (drawn**2).sum()}
        lines.append(json.dumps(line))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("more", "verdict", "exit_code"), [(0.0, "pass", 0), (0.5, "fail", 1), (0.15, "inconclusive", 3)]
)
def test_numbers_are_judged_by_their_means(tmp_path: Path, more: float, verdict: str, exit_code: int) -> None:
    """The three cases are harm, safety within a budget in the numbers' unit, and neither."""
    file = tmp_path / "numbers.yaml"
    file.write_text("cost: {between: [0, 10], tolerance: 0.2, budget: 0.2, unit: EUR}")
    done = judge("-", "--numbers", str(file), lines=costs(60, more))
    assert done.returncode == exit_code, done.stderr
    answer = json.loads(done.stdout)
    cost = answer["signals"]["cost"]
    assert answer["verdict"] == verdict
    assert cost["difference_least"] <= more <= cost["difference_most"]


def test_numbers_need_a_history_of_numbers(tmp_path: Path) -> None:
    """Noise is measured on stable's sums."""
    (tmp_path / "numbers.yaml").write_text("cost: {between: [0, 10]}")
    (tmp_path / "history.jsonl").write_text(costs(60, 0.0))
    later = "\n".join(
        json.dumps(json.loads(line) | {"end_s": 1000 + json.loads(line)["end_s"]}) for line in costs(20, 0).splitlines()
    )
    arguments = ("--numbers", str(tmp_path / "numbers.yaml"), "--history", str(tmp_path / "history.jsonl"))
    done = judge("-", *arguments, lines=later)
    assert "cost 1" in done.stderr
    assert done.returncode == 0
    assert judge("-", "--numbers", str(tmp_path / "missing.yaml"), lines=later).returncode == 2
