"""Is this canary harmless, and how do we know? Statistics only: counts in, verdict and evidence out.

Data: two pairs for each window and signal, x bad events of n_c on canary and y of n_s on stable. Everything conditions
on the totals of each window, so neither changing weights nor a drifting base rate matters.

FAIL (`kernels`, `fail`). Null hypothesis: canary's odds (or ratio) of a bad event are at most `tolerance` times
stable's. In each window the likelihood ratio of Fisher's noncentral hypergeometric distribution (`exact`), or an O(1)
binomial bound on it (`rare`), is an e-value. A mixture over five odds ratios and over the unknown start of the harm
makes an e-process; by Ville's inequality P(ever FAIL | harmless) <= alpha, however often the evidence is judged. Where
stable has no rate to compare with (shadow answers that differ from stable's), the null hypothesis is a fixed share,
and the e-value a binomial likelihood ratio (`bounded`).

Better. Where labels say that exactly one of the two versions was right about a request, an equally good canary is the
right one half of the time, whatever came before (`bounded` at one half, on the requests where the canary was right).
Proof of more than half excuses the signals that only say that the versions differ.

PASS (`bound`, `bets`). Null hypothesis: the mean excess of canary's bad ratio is at least m. A mixture of exponential
supermartingales in the stratified difference gives an anytime-valid upper confidence bound U. Stable's failures before
the release place most of the mixture's stake. A step to weight w passes only if w U is within the risk budget.
There is no nuisance parameter, and arms are not pooled over strata of different weight.

Many signals (`portfolio`): a weighted mean of e-values, valid under any dependence. Two-sided: the mean of both sides.
Not Bernoulli (`noise`, `own_noise`): each log e-value is divided by phi, the dispersion that the noise of one version
alone gives the comparison at the canary's share, estimated from stable's history. By Jensen's inequality e^(1/phi) is
still an e-value; that phi covers clusters rests on second-order theory and simulation, not on a proof.

`judge` combines the evidence, `verdicts` and `words` state the result, `jsonl` reads and writes JSON lines.
Proofs and costs: docs/decisions/0002-the-judge.md.
The package itself exports the types and the noise, which load no library. Import `Judge` from `rollout.judge.judge`.
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
