"""`kanaria judge`: the judge on its own, for counts from any source."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from rollout.control.calibration import Calibration
from rollout.errors import SpecError
from rollout.format import share, span
from rollout.judge import JudgeConfig, Judgement, OwnNoise, Pair, SignalRule, Verdict, Window
from rollout.judge.jsonl import LineError, judgement_object, parse_windows
from rollout.judge.judge import Judge
from rollout.judge.words import tally
from rollout.signals.catalogue import catalogue
from rollout.signals.numbers import parse_numbers
from rollout.signals.plan import SignalSelection
from rollout.ui.cli.conventions import EXIT_DONE, EXIT_FAIL, EXIT_UNDECIDED, explained, print_json
from rollout.ui.cli.plan import read_spec

_VERDICT_EXITS = {
    Verdict.PASS: EXIT_DONE,
    Verdict.FAIL: EXIT_FAIL,
    Verdict.INCONCLUSIVE: EXIT_UNDECIDED,
    Verdict.NO_DATA: EXIT_UNDECIDED,
}
_LONGEST_LINE = 100_000  # bytes; a file without line ends must not fill the memory
_JITTER_S = 1e-3  # two clocks may disagree by this much about the end of the history and the start of the release


def judge(
    file: Annotated[Path, typer.Argument(help="Counts, one JSON line per window and signal; - for standard input.")],
    *,
    spec: Annotated[
        Path | None,
        typer.Option("--spec", help="Plan with the signals' options, `alpha` and `risk_budget`. Default: none."),
    ] = None,
    weight: Annotated[
        float,
        typer.Option(
            help="Canary's share of the traffic at the next step, percent: PASS means that this step is within the "
            "risk budget.",
            min=0.01,
            max=100,
        ),
    ] = 100.0,
    numbers: Annotated[
        Path | None,
        typer.Option(help="YAML file for signals of your own whose events are numbers: `cost: {between: [0, 10]}`."),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="Stable's windows before the release, as in FILE; `canary` may be left out."),
    ] = None,
    warmup: Annotated[
        float, typer.Option(help="Length of the warm-up, seconds: windows that begin in it are left out.", min=0)
    ] = 0.0,
    trace: Annotated[bool, typer.Option(help="Print the judgement after every window.")] = False,
) -> None:
    """Judge counts from any source; print the verdict as JSON."""
    with explained(), _until_nobody_reads():
        plan = read_spec(spec) if spec else None
        config = plan.judge_config() if plan else JudgeConfig(rules=catalogue().rules)
        if numbers:
            rules = {**config.rules, **_numbers(numbers, tuple(config.rules))}
            config = replace(config, rules=rules, may_lack=frozenset() if plan else frozenset(catalogue().rules))
        before = _history(history, config.rules) if history else _History()
        question = _Question(weight / 100, plan.expected() if plan else (), warmup)
        with _lines(file) as lines:
            windows = before.followed_by(_windows(lines, config.rules))
            judgement = _judge(windows, Judge(config, before.noise, before.known), question, trace=trace)
        print_json(judgement_object(judgement))
        raise typer.Exit(_VERDICT_EXITS[judgement.verdict])


@dataclass(frozen=True, slots=True)
class _Question:
    """What the judge is asked."""

    next_weight: float
    expected: Sequence[str]
    warmup_s: float


@dataclass(frozen=True, slots=True)
class _History:
    """What was known before the first window; by default nothing."""

    noise: Mapping[str, OwnNoise] = field(default_factory=dict)
    known: Mapping[str, Pair] = field(default_factory=dict)
    end_s: float | None = None

    def followed_by(self, windows: Iterator[Window]) -> Iterator[Window]:
        """The same windows. Raises SpecError if one begins before the history ends: noise must be known beforehand."""
        return self._checked(windows, self.end_s) if self.end_s is not None else windows

    @staticmethod
    def _checked(windows: Iterator[Window], end_s: float) -> Iterator[Window]:
        for window in windows:
            if _begins_s(window) < end_s - _JITTER_S:
                raise SpecError(
                    "the history ends after the first window has begun",
                    saw=f"it ends at {end_s}, a window of `{window.signal}` begins at {_begins_s(window)}",
                    do="give stable's windows from before the release",
                )
            yield window


def _begins_s(window: Window) -> float:
    return window.end_s - window.window_s


class _AsNamed(SignalSelection):
    """Selects every counter, under its own name."""

    def of(self, every: Iterable[Window]) -> list[Window]:
        return list(every)


def _numbers(file: Path, taken: tuple[str, ...]) -> dict[str, SignalRule]:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{file} cannot be read", saw=str(error), do="give a YAML file about the numbers") from error
    return parse_numbers(text, name=str(file), taken=taken)


def _windows(
    lines: Iterable[bytes], rules: Mapping[str, SignalRule], *, name: str = "", is_history: bool = False
) -> Iterator[Window]:
    numbers = {family: rule.numbers for family, rule in rules.items() if rule.numbers}
    return parse_windows(lines, tuple(rules), numbers=numbers, name=name, is_history=is_history)


def _history(file: Path, rules: Mapping[str, SignalRule]) -> _History:
    """The calibration from the time before the release, see `Calibration`; it is also printed on standard error."""
    calibration, end_s = Calibration(), None
    with _lines(file) as lines:
        for window in _windows(lines, rules, name=str(file), is_history=True):
            end_s = window.end_s
            calibration.observe([window], end_s, release=None, stable="stable")
    if end_s is None:
        raise SpecError(f"{file} has no windows", saw="no lines", do="leave out --history, or give stable's windows")
    every, errors = _AsNamed({}), calibration.errors
    noise = calibration.noise(every)
    phi = ", ".join(f"{signal} {own.blips:.2g}" for signal, own in noise.items())
    failed = f"; {tally(errors)} requests failed ({share(errors.bad / errors.total)})" if errors.total else ""
    typer.echo(f"history: {span(calibration.span_s)}; phi, 1 for independent requests: {phi}{failed}", err=True)
    return _History(noise, {"errors": errors}, end_s)


@contextmanager
def _lines(file: Path) -> Iterator[Iterable[bytes]]:
    """The lines of `file`, or of standard input as they arrive."""
    if str(file) == "-":
        if sys.stdin is None:
            raise SpecError("standard input cannot be read", saw="it is closed", do="give a file of JSON lines")
        yield _read(sys.stdin.buffer, "standard input")
        return
    try:
        stream = file.open("rb")
    except OSError as error:
        raise _unreadable(str(file), error) from error
    with stream:
        yield _read(stream, str(file))


def _read(stream: BinaryIO, name: str) -> Iterator[bytes]:
    number = 0
    try:
        while line := stream.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                raise LineError(
                    f"{name}, line {number}: longer than {_LONGEST_LINE:,} bytes",
                    saw=f"{line.decode(errors='replace')!r:.120}",
                    do="write one window per line",
                )
            yield line
    except OSError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: OSError) -> SpecError:
    return SpecError(f"{name} cannot be read", saw=str(error), do="give a file of JSON lines, or -")


def _judge(windows: Iterator[Window], judge: Judge, question: _Question, *, trace: bool) -> Judgement:
    """Judge every window except those of the warm-up."""
    ask = partial(judge.judgement, next_weight=question.next_weight, expected=question.expected)
    first = next(windows, None)
    if first is None:
        return ask()
    begins_s, windows = _begins_s(first) + question.warmup_s, chain([first], windows)
    if not trace:
        judge.observe(window for window in windows if _begins_s(window) >= begins_s)
        return ask()
    for end_s, tick in groupby(windows, key=lambda window: window.end_s):
        judge.observe([window for window in tick if _begins_s(window) >= begins_s])
        typer.echo(json.dumps({"end_s": end_s, **judgement_object(ask())}))
    return ask()


@contextmanager
def _until_nobody_reads() -> Iterator[None]:
    """End without a verdict when the reader of the output is gone, as in `kanaria judge --trace FILE | head`."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that flushing the buffer does not fail
        raise typer.Exit(EXIT_UNDECIDED) from None
