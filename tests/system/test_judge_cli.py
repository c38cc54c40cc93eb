"""`kanaria judge`: the judge alone, on counts from anywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stack import ROOT


def judge(*arguments: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kanaria", "judge", *arguments],
        input=lines,
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
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
    """A CI job needs nothing but the exit code; the rest is JSON."""
    done = judge("-", lines=lines)
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (exit_code, verdict)


def test_a_file_serves_as_well(tmp_path: Path) -> None:
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
        (window(1.0, 0), "time goes back"),
        (window(10.0, 0, signal="latency:"), "latency:100"),
        (window(10.0, 0, signal="horoscope"), "horoscope"),
    ],
    ids=["not JSON", "impossible counts", "time goes back", "no key", "unknown signal"],
)
def test_a_malformed_line_is_named(line: str, words: str) -> None:
    """Line number, field and reason; exit code 2 and no stack trace."""
    done = judge("-", lines=window(5.0, 0) + line)
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


def test_it_judges_a_stream_as_it_comes() -> None:
    """With --trace each window is answered before the next one is sent."""
    command = [sys.executable, "-m", "kanaria", "judge", "-", "--trace"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for end_s in (5.0, 10.0):
            process.stdin.write(window(end_s, 0) + window(end_s + 0.5, 0))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["end_s"] <= end_s
        process.stdin.close()
        process.wait(30)
