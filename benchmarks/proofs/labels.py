"""`python -m benchmarks labels`: how many labels show which of two versions is right, and what happens without labels.

The judge is the real one; answers and labels are simulated and seeded.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.output import FOLDER, Out, Write
from benchmarks.proofs.cells import often
from benchmarks.proofs.sections import Scale, Section, page_command, publish, simulated
from rollout.format import count, share
from rollout.judge import JudgeConfig, Judgement, Pair, Verdict, Window
from rollout.judge.judge import Judge
from rollout.signals.options import PairedLabel, WrongLabel
from rollout.signals.plan import Signals
from rollout.simulate.summary import quantile
from rollout.spec import RolloutSpec

PAGE = "labels.md"
_WINDOW_S = 5.0
_LABELS = 20  # a window, such as of four requests a second
_ANSWERS = 100  # compared in a window of the shadow
_MOST_WINDOWS = 500
_RELEASES = 200
_SEED = 1882
_AGE_S = 600.0  # at which unpaired labels count; the only condition is that both versions have the same

RIGHT = ((0.58, 0.96), (0.95, 0.97), (0.97, 0.95), (0.95, 0.80), (0.95, 0.95))  # stable's and canary's answers
DIFFERING = (0.05, 0.16, 0.43, 0.90)
_WRONG_WHERE_THEY_DIFFER = {"a better model": 0.1, "one that is wrong": 0.9}

_LABELLED = """
# Better is not different

Written by `{command}`.

## How many labels it takes

Both versions answer the same requests in the shadow, and the labels of {labels} requests come in each window of
five seconds. *Paired*: only requests that exactly one version answered right count (`paired_label`). *Unpaired*: the
wrong answers of each version are counted separately, all at one age (`wrong_label` with `after`), as if each version
had other requests. The worse version also gets half of the better version's mistakes wrong. Each kind of label is
judged alone, with a tolerance of 1.25 for harm and none for proof that the canary is better. *Labels*: until the proof,
median of {releases} releases of at most {most} labels. *Proven wrongly*: the share of the proofs, of both kinds, that
say the opposite, or that call one of two equal versions better.

Any improvement can be proven to be better; only what exceeds the tolerance can be proven to be worse."""

_UNLABELLED = """
## Differences alone

A share of the answers differs in the shadow step, in which {answers} are compared in each window. Without labels
it is unknown which version is right: up to a tenth passes, more is left to a person, and more than half is rolled
back. With the labels of {labels} requests a window the labels decide: where the two differ, the canary is right in nine
of ten (a better model) or in one of ten (one that is wrong). The table shows what the judge concludes within two
minutes, after how many compared answers, and in what share of {releases} releases, with its 95 % interval."""


_HEADS_LABELLED = ("right: stable", "canary", "paired prove", "labels", "unpaired prove", "labels", "proven wrongly")
_HEADS_UNLABELLED = ("differ", "labels", "concluded", "compared answers", "how often")


@dataclass(frozen=True, slots=True)
class Kind:
    """How labels are counted."""

    name: str
    config: JudgeConfig

    def judge(self) -> Judge:
        return Judge(self.config)


def _alone(signals: dict[str, object], family: str) -> JudgeConfig:
    config = RolloutSpec(signals=Signals.model_validate(signals)).judge_config()
    return replace(config, rules={family: config.rules[family]})


PAIRED = Kind("paired", _alone({"paired_label": PairedLabel()}, "paired_label"))
UNPAIRED = Kind("unpaired", _alone({"wrong_label": WrongLabel(after=_AGE_S)}, "wrong_label"))


def labels_until(kind: Kind, right: tuple[float, float], seed: Sequence[int]) -> tuple[str, int]:
    """What labels prove of a canary, and how many of them: `better`, `worse` or `nothing`."""
    rng, judge = np.random.default_rng(seed), kind.judge()
    for number in range(1, _MOST_WINDOWS + 1):
        if kind is PAIRED:
            stable_only, canary_only = (int(each) for each in rng.multinomial(_LABELS, _chances(right))[:2])
            pairs = Pair(stable_only, stable_only + canary_only)
            window = Window(_WINDOW_S * number, _WINDOW_S, "paired_label", Pair(0, 0), pairs)
        else:
            stable, canary = (Pair(int(rng.binomial(_LABELS, 1 - ratio)), _LABELS) for ratio in right)
            window = Window(_WINDOW_S * number, _WINDOW_S, "wrong_label", stable, canary)
        judge.observe([window])
        judgement = judge.judgement(next_weight=None)
        if judgement.verdict is Verdict.FAIL:
            return "worse", number * _LABELS
        if judgement.improvement and judgement.improvement.is_proven:
            return "better", number * _LABELS
    return "nothing", _MOST_WINDOWS * _LABELS


def _chances(right: tuple[float, float]) -> tuple[float, float, float]:
    """The chance that stable alone, the canary alone, and both or none answer a request right."""
    stable_wrong, canary_wrong = (1 - ratio for ratio in right)
    both_wrong = min(stable_wrong, canary_wrong) / 2
    stable_only, canary_only = canary_wrong - both_wrong, stable_wrong - both_wrong
    return stable_only, canary_only, 1 - stable_only - canary_only


def concluded(differing: float, wrong: float | None, seed: Sequence[int]) -> tuple[str, int]:
    """What the judge concludes of a shadow within two minutes, and after how many compared answers.

    Args:
        differing: share of the answers.
        wrong: share of these in which the canary is wrong; None: no labels come.
    """
    rng, judge = np.random.default_rng(seed), Judge(RolloutSpec().judge_config())
    answers, first = 0, ("waits", 0)
    for number in range(1, 25):
        end_s, answers = _WINDOW_S * number, answers + _ANSWERS
        differ = int(rng.binomial(_ANSWERS, differing))
        shown = {"errors": (Pair(0, 1000), Pair(0, 1000)), "disagreement": (Pair(0, 0), Pair(differ, _ANSWERS))}
        if wrong is not None:
            labelled = int(rng.binomial(_LABELS, differing))
            shown["paired_label"] = (Pair(0, 0), Pair(int(rng.binomial(labelled, wrong)), labelled))
        judge.observe([Window(end_s, _WINDOW_S, name, *counts) for name, counts in shown.items()])
        said = _conclusion(judge.judgement(next_weight=0.05))
        if said != first[0]:
            first = said, answers
        if said == "rolled back":
            break
    return first


def _conclusion(judgement: Judgement) -> str:
    if judgement.verdict is Verdict.FAIL:
        return "rolled back" if judgement.on_fail == "rollback" else "left to a person"
    return "passes" if judgement.verdict is Verdict.PASS else "waits"


def sections(releases: int, command: str) -> Iterator[Section]:
    """The page's texts and tables, simulated row by row."""
    names = {"labels": _LABELS, "releases": releases, "most": count(_MOST_WINDOWS * _LABELS), "answers": _ANSWERS}
    yield Section(_LABELLED.format(command=command, **names), _HEADS_LABELLED, _labelled(releases))
    yield Section(_UNLABELLED.format(**names), _HEADS_UNLABELLED, _unlabelled(releases))


def _labelled(releases: int) -> Iterator[Sequence[str]]:
    for place, (stable, canary) in enumerate(RIGHT):
        true = "better" if canary > stable else "worse" if canary < stable else "nothing"
        cells: list[str] = []
        wrongly: list[bool] = []
        for kind in (PAIRED, UNPAIRED):
            found = [labels_until(kind, (stable, canary), (_SEED, place, number)) for number in range(releases)]
            proven = [labels if said == true else math.inf for said, labels in found]
            cells += _middle(true, proven)
            wrongly += [said not in (true, "nothing") for said, _ in found]
        yield share(stable), share(canary), *cells, often(wrongly)


def _middle(true: str, labels: Sequence[float]) -> tuple[str, str]:
    middle = quantile(labels, 0.5).value
    return true, count(round(middle)) if math.isfinite(middle) and true != "nothing" else "more" * (true != "nothing")


def _unlabelled(releases: int) -> Iterator[Sequence[str]]:
    for place, differing in enumerate(DIFFERING):
        for kind, wrong in (("none come", None), *_WRONG_WHERE_THEY_DIFFER.items()):
            found = [concluded(differing, wrong, (_SEED, 9, place, number)) for number in range(releases)]
            said = max({one for one, _ in found}, key=lambda each: sum(one == each for one, _ in found))
            answers = quantile([float(after) for one, after in found if one == said], 0.5).value
            yield share(differing), kind, said, count(round(answers)), often([one == said for one, _ in found])


def labels(scale: Scale = 1.0, write: Write = False, out: Out = FOLDER) -> None:
    """Simulate how many labels show which of two versions is right, and what happens without labels.

    Prints the page as Markdown without `--write`.
    """
    releases = max(1, round(scale * _RELEASES))
    publish(map(simulated, sections(releases, page_command("labels", scale))), PAGE, out, write=write)
