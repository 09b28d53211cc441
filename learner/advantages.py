"""What an action was worth more than expected: GAE, and V-trace for actions of another policy.

Shapes: `R` unrolls of `T` steps each. Values are in the unit of the rewards.

Both are one recurrence from the last step to the first. Episodes end within an unroll, so it is cut:

- after a terminated step, which nothing follows: what comes after it is worth 0;
- after a truncated step: what comes after it is worth the value of the episode's final observation,
  `value[t + 1]`, and no more is known;
- before and after a step that is not valid, whose own results are 0 and whose numbers are never looked at.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


def gae(
    reward: Floats,
    value: Floats,
    terminated: Bools,
    truncated: Bools,
    valid: Bools,
    *,
    discount: float,
    gae_lambda: float,
) -> tuple[Floats, Floats]:
    """Return advantages and what values are fitted to, float32 [R, T] each.

    Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438), γ = discount, λ = gae_lambda:

        δ_t = r_t + γ V(x_{t+1}) - V(x_t)            without V(x_{t+1}) if t terminated
        A_t = δ_t + γ λ A_{t+1}                      without A_{t+1} where the chain is cut, and at the end
        target_t = V(x_t) + A_t

    λ = 0 trusts the values from the next step on, λ = 1 only beyond the end of the unroll.

    Args:
        reward, terminated, truncated, valid: [R, T].
        value: [R, T+1], V of each observation and of the one that the unroll leads to.
        discount, gae_lambda: 0 to 1.
    """
    delta = _td_errors(reward, value, terminated, valid, discount=discount)
    advantage = _backward_sums(delta, discount * gae_lambda * _goes_on(terminated, truncated, valid))
    return advantage, np.where(valid, value[:, :-1] + advantage, np.float32(0.0))


def vtrace(
    ratio: Floats,
    reward: Floats,
    value: Floats,
    terminated: Bools,
    truncated: Bools,
    valid: Bools,
    *,
    discount: float,
    trace_lambda: float,
    rho_clip: float,
    c_clip: float,
) -> tuple[Floats, Floats]:
    """Return advantages and what values are fitted to, float32 [R, T] each, of another policy's steps.

    V-trace (Espeholt et al. 2018, arXiv 1802.01561, §4.1 and remark 2), with δ_t as in `gae`,
    ρ_t = min(rho_clip, ratio_t) and c_t = λ min(c_clip, ratio_t):

        v_t = V(x_t) + ρ_t δ_t + γ c_t (v_{t+1} - V(x_{t+1}))        the last term cut as in `gae`
        A_t = r_t + γ q_{t+1} - V(x_t),    q_{t+1} = V(x_{t+1}) + λ (v_{t+1} - V(x_{t+1}))

    With λ = 1, as in the paper, q is v. With λ < 1 this q is rlax's: it makes the whole GAE when the policies are
    the same and the clips are at least 1. The policy gradient weighs A_t with ρ_t; that is left to the caller.

    Args:
        ratio: [R, T], probability of the action by the policy that is learnt, over that by the one that acted.
        reward, terminated, truncated, valid: [R, T].
        value: [R, T+1], V of the network that is learnt.
        discount, trace_lambda: 0 to 1.
        rho_clip: ρ̄, bounds the weight of a step: it decides what the values converge to.
        c_clip: c̄, bounds how far what came later reaches back: it decides how fast they do.
    """
    ratio = np.where(valid, ratio, np.float32(0.0))
    delta = _td_errors(reward, value, terminated, valid, discount=discount)
    decay = discount * trace_lambda * _goes_on(terminated, truncated, valid)
    correction = _backward_sums(np.minimum(ratio, rho_clip) * delta, decay * np.minimum(ratio, c_clip))
    advantage = delta
    advantage[:, :-1] += decay[:, :-1] * correction[:, 1:]
    return advantage, np.where(valid, value[:, :-1] + correction, np.float32(0.0))


def _td_errors(reward: Floats, value: Floats, terminated: Bools, valid: Bools, *, discount: float) -> Floats:
    """Return δ; 0 of a step that is not valid, even if its numbers are not finite."""
    after = np.where(terminated, np.float32(0.0), value[:, 1:])
    return np.where(valid, reward + discount * after - value[:, :-1], np.float32(0.0))


def _goes_on(terminated: Bools, truncated: Bools, valid: Bools) -> Floats:
    """Return 1 where the next step belongs to the same chain as this one, else 0."""
    return (valid & ~terminated & ~truncated).astype(np.float32)


def _backward_sums(term: Floats, decay: Floats) -> Floats:
    """Return s_t = term_t + decay_t s_{t+1}, with s_T = 0, for each row."""
    sums = term.copy()
    for t in range(term.shape[1] - 2, -1, -1):
        sums[:, t] += decay[:, t] * sums[:, t + 1]
    return sums
