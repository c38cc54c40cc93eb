"""Is this canary harmless, and how do we know? Pure statistics: counts in, verdict and evidence out.

Data: per window and signal two pairs, x bad of n_c on canary and y of n_s on stable. Everything conditions on the
totals, window by window, so that neither changing weights nor a drifting base rate matter.

FAIL (`kernels`, `fail`). Null: canary's odds (or ratio) of a bad event are at most `tolerance` times stable's. Per
window the likelihood ratio of Fisher's noncentral hypergeometric distribution (`exact`), or an O(1) binomial bound on
it (`rare`), is an e-value. A mixture over five odds ratios and over the unknown start of the harm makes an e-process;
by Ville's inequality P(ever FAIL | harmless) <= alpha, whenever and however often one looks. Where stable is no
measure (shadow answers that differ from its own), the null is a fixed share (`bounded`): a binomial likelihood ratio.

PASS (`bound`, `bets`). Null: the mean excess of canary's bad ratio is at least m. A mixture of exponential
supermartingales in the stratified difference, most of its stake placed by what stable failed before, gives an
anytime-valid upper confidence bound U; a step to weight w passes only if w U is within the risk budget.
No nuisance parameter, no pooling of arms over strata of different weight.

Many signals (`portfolio`): a weighted mean of e-values, valid under any dependence. Two-sided: the mean of both sides.
Not Bernoulli (`noise`): each log e-value is divided by the dispersion phi of stable's own history. By Jensen e^(1/phi)
is still an e-value; that phi covers clusters is second-order theory and simulation, not proof.

`judge` adds it up, `verdicts` and `words` say it, `jsonl` carries it. Proofs, prices: docs/decisions/0002-the-judge.md.
"""

from rollout.judge.jsonl import LineError, judgement_object, parse_ticks, parse_window
from rollout.judge.judge import Judge
from rollout.judge.noise import dispersion, user_dispersion
from rollout.judge.types import (
    DEFAULT_RULES,
    JudgeConfig,
    Judgement,
    Pair,
    SignalJudgement,
    SignalRule,
    Verdict,
    Window,
)

__all__ = [
    "DEFAULT_RULES",
    "Judge",
    "JudgeConfig",
    "Judgement",
    "LineError",
    "Pair",
    "SignalJudgement",
    "SignalRule",
    "Verdict",
    "Window",
    "dispersion",
    "judgement_object",
    "parse_ticks",
    "parse_window",
    "user_dispersion",
]
