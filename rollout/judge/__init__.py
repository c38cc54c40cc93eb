"""Is this canary harmless, and how do we know? Statistics only: counts in, verdict and evidence out.

Data: per window and signal two pairs, x bad of n_c on canary and y of n_s on stable. Everything conditions on the
totals, window by window, so neither changing weights nor a drifting base rate matters.

FAIL (`kernels`, `fail`). Null: canary's odds (or ratio) of a bad event are at most `tolerance` times stable's. Per
window the likelihood ratio of Fisher's noncentral hypergeometric distribution (`exact`), or an O(1) binomial bound on
it (`rare`), is an e-value. A mixture over five odds ratios and over the unknown start of the harm makes an e-process;
by Ville's inequality P(ever FAIL | harmless) <= alpha, however often the evidence is judged. Where stable has no rate
to compare with (shadow answers that differ from stable's), the null is a fixed share (`bounded`): a binomial
likelihood ratio.

Better. Where labels say that exactly one of two versions was right about a request, an equal canary was so half of the
time, whatever came before (`bounded` at one half, on the requests that it won). A proof of more excuses the signals
that only say that the versions differ.

PASS (`bound`, `bets`). Null: the mean excess of canary's bad ratio is at least m. A mixture of exponential
supermartingales in the stratified difference, most of its stake placed by stable's failures before the release, gives
an anytime-valid upper confidence bound U; a step to weight w passes only if w U is within the risk budget.
No nuisance parameter, no pooling of arms over strata of different weight.

Many signals (`portfolio`): a weighted mean of e-values, valid under any dependence. Two-sided: the mean of both sides.
Not Bernoulli (`noise`, `own_noise`): each log e-value is divided by phi, the dispersion that noise of one version alone
gives the comparison at the canary's share, as stable's history tells it. By Jensen e^(1/phi) is still an e-value; that
phi covers clusters is second-order theory and simulation, not proof.

`judge` combines the evidence, `verdicts` and `words` state the result, `jsonl` reads and writes JSON lines.
Proofs and costs: docs/decisions/0002-the-judge.md.
This package gives the types and the noise, which load no library; `Judge` is imported from `judge`, and so on.
"""

from rollout.judge.noise import dispersion, user_dispersion
from rollout.judge.own_noise import OwnNoise, own_noise
from rollout.judge.types import (
    Ask,
    JudgeConfig,
    Judgement,
    Pair,
    SignalJudgement,
    SignalRule,
    SignalWords,
    Verdict,
    Window,
)

__all__ = [
    "Ask",
    "JudgeConfig",
    "Judgement",
    "OwnNoise",
    "Pair",
    "SignalJudgement",
    "SignalRule",
    "SignalWords",
    "Verdict",
    "Window",
    "dispersion",
    "own_noise",
    "user_dispersion",
]
