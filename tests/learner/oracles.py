"""Losses and recurrences as their papers write them: in float64, a row and a step at a time, sums written out.

They share nothing with the real ones but the meaning of their arguments.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from configs.schema import LearnerConfig, PolicyGradientConfig
from core.environments import ActionSpec

Arrays = Mapping[str, np.ndarray]


def log_softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    normaliser = top + math.log(sum(math.exp(logit - top) for logit in logits))
    return [logit - normaliser for logit in logits]


def log_prob_and_entropy(policy: np.ndarray, action: np.ndarray, actions: ActionSpec) -> tuple[float, float]:
    """Judge one row: policy [P], action [K]."""
    numbers = policy.tolist()
    log_prob = entropy = 0.0
    if actions.kind == "gaussian":
        (dimensions,) = actions.sizes
        for i in range(dimensions):
            mean, deviation = numbers[i], math.exp(numbers[dimensions + i])
            # The density itself may be too small for a number.
            log_prob -= ((float(action[i]) - mean) / deviation) ** 2 / 2
            log_prob -= math.log(deviation * math.sqrt(2 * math.pi))
            entropy += math.log(deviation * math.sqrt(2 * math.pi * math.e))
        return log_prob, entropy
    bounds = pairwise([sum(actions.sizes[:k]) for k in range(len(actions.sizes) + 1)])
    for choice, (low, high) in zip(action.tolist(), bounds, strict=True):
        log_p = log_softmax(numbers[low:high])
        log_prob += log_p[choice]
        entropy -= sum(math.exp(x) * x for x in log_p)
    return log_prob, entropy


def chain(unroll: Arrays, row: int, start: int) -> list[int]:
    """Return the steps from `start` on over which rewards may be added up."""
    steps = []
    for t in range(start, unroll["reward"].shape[1]):
        if not unroll["valid"][row, t]:
            break
        steps.append(t)
        if unroll["terminated"][row, t] or unroll["truncated"][row, t]:
            break
    return steps


def td_error(unroll: Arrays, value: np.ndarray, row: int, t: int, *, discount: float) -> float:
    after = 0.0 if unroll["terminated"][row, t] else float(value[row, t + 1])
    return float(unroll["reward"][row, t]) + discount * after - float(value[row, t])


def gae(
    unroll: Arrays, value: np.ndarray, *, discount: float, gae_lambda: float
) -> tuple[np.ndarray, np.ndarray]:
    """Schulman et al. 2015, equation 16: A_t = Σ_l (γλ)^l δ_{t+l}."""
    rows, steps = unroll["reward"].shape
    advantage, target = np.zeros((rows, steps)), np.zeros((rows, steps))
    for row in range(rows):
        for s in range(steps):
            if unroll["valid"][row, s]:
                for t in chain(unroll, row, s):
                    delta = td_error(unroll, value, row, t, discount=discount)
                    advantage[row, s] += (discount * gae_lambda) ** (t - s) * delta
                target[row, s] = float(value[row, s]) + advantage[row, s]
    return advantage, target


def vtrace(
    ratio: np.ndarray,
    unroll: Arrays,
    value: np.ndarray,
    *,
    discount: float,
    trace_lambda: float,
    rho_clip: float,
    c_clip: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Espeholt et al. 2018, equation 1: v_s = V(x_s) + Σ_t γ^(t-s) (Π_{i=s}^{t-1} c_i) ρ_t δ_t."""
    rows, steps = unroll["reward"].shape
    advantage, target = np.zeros((rows, steps)), np.zeros((rows, steps))
    for row in range(rows):
        for s in reversed(range(steps)):
            if not unroll["valid"][row, s]:
                continue
            target[row, s] = float(value[row, s])
            whole = chain(unroll, row, s)
            for t in whole:
                trace = math.prod(trace_lambda * min(c_clip, float(ratio[row, i])) for i in range(s, t))
                rho = min(rho_clip, float(ratio[row, t]))
                delta = td_error(unroll, value, row, t, discount=discount)
                target[row, s] += discount ** (t - s) * trace * rho * delta
            after = 0.0 if unroll["terminated"][row, s] else float(value[row, s + 1])
            if len(whole) > 1:
                after = trace_lambda * target[row, s + 1] + (1 - trace_lambda) * after
            advantage[row, s] = float(unroll["reward"][row, s]) + discount * after - float(value[row, s])
    return advantage, target


def ppo_losses(
    policy: np.ndarray,
    value: np.ndarray,
    part: Arrays,
    *,
    actions: ActionSpec,
    config: PolicyGradientConfig,
    reward_scale: float,
) -> dict[str, float]:
    """Schulman et al. 2017, equations 7 and 9; the value's clip as in OpenAI's baselines."""
    steps, epsilon = len(value), config.ratio_clip
    names = ("policy_loss", "value_loss", "policy_entropy", "kl", "clip_share", "ratio_error")
    means = dict.fromkeys(names, 0.0)
    for i in range(steps):
        log_prob, entropy = log_prob_and_entropy(policy[i], part["action"][i], actions)
        ratio = math.exp(log_prob - float(part["log_prob"][i]))
        clipped = min(max(ratio, 1 - epsilon), 1 + epsilon)
        advantage = float(part["advantage"][i])

        target, old = float(part["value_target"][i]) / reward_scale, float(part["value"][i]) / reward_scale
        scaled = float(value[i]) / reward_scale
        square = (scaled - target) ** 2
        if config.value_clip is not None:
            near = old + min(max(scaled - old, -config.value_clip), config.value_clip)
            square = max(square, (near - target) ** 2)

        means["policy_loss"] -= min(ratio * advantage, clipped * advantage) / steps
        means["value_loss"] += 0.5 * square / steps
        means["policy_entropy"] += entropy / steps
        means["kl"] += ((ratio - 1) - (log_prob - float(part["log_prob"][i]))) / steps
        means["clip_share"] += (ratio != clipped) / steps
        means["ratio_error"] += abs(ratio - 1) / steps
    return means | {"loss": actor_critic_loss(means, config)}


def vtrace_losses(
    policy: np.ndarray,
    value: np.ndarray,
    part: Arrays,
    *,
    actions: ActionSpec,
    config: PolicyGradientConfig,
    discount: float,
    reward_scale: float,
    judge: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, float]:
    """Espeholt et al. 2018, §4.2: policy [R, T+1, P], value [R, T+1].

    What gets no gradient (targets, advantages, weights) is computed from `judge`, a policy and a value like these.
    """
    judging_policy, judging_value = judge or (policy, value)
    valid = [(int(row), int(t)) for row, t in np.argwhere(part["valid"])]
    log_ratio = np.full(part["valid"].shape, math.nan)
    for at in valid:
        log_prob, _ = log_prob_and_entropy(judging_policy[at], part["action"][at], actions)
        log_ratio[at] = log_prob - float(part["log_prob"][at])
    ratio = np.exp(log_ratio)
    advantage, target = vtrace(
        ratio,
        part,
        judging_value,
        discount=discount,
        trace_lambda=config.gae_lambda,
        rho_clip=config.vtrace_rho_clip,
        c_clip=config.vtrace_c_clip,
    )
    names = ("policy_loss", "value_loss", "policy_entropy", "kl", "rho_mean", "clip_share")
    means = dict.fromkeys(names, 0.0)
    for at in valid:
        log_prob, entropy = log_prob_and_entropy(policy[at], part["action"][at], actions)
        rho = min(config.vtrace_rho_clip, ratio[at])
        means["policy_loss"] -= rho * log_prob * advantage[at] / reward_scale / len(valid)
        means["value_loss"] += 0.5 * ((float(value[at]) - target[at]) / reward_scale) ** 2 / len(valid)
        means["policy_entropy"] += entropy / len(valid)
        means["kl"] += ((ratio[at] - 1) - log_ratio[at]) / len(valid)
        means["rho_mean"] += rho / len(valid)
        means["clip_share"] += (rho != ratio[at]) / len(valid)
    return means | {"loss": actor_critic_loss(means, config)}


def actor_critic_loss(means: Mapping[str, float], config: PolicyGradientConfig) -> float:
    bonus = config.entropy_weight * means["policy_entropy"]
    return means["policy_loss"] + config.value_weight * means["value_loss"] - bonus


def alphazero_losses(
    logits: np.ndarray,
    values: np.ndarray,
    targets: Arrays,
    *,
    config: LearnerConfig,
    soft_logits: np.ndarray | None = None,
    soft_policy_weight: float = 0.0,
) -> dict[str, float]:
    policy = entropy = target_entropy = value_loss = value_error = weights = soft = 0.0
    rows = len(logits)
    for row in range(rows):
        log_q = log_softmax(logits[row].tolist())
        p = [float(share) for share in targets["policy"][row]]
        importance = float(targets["importance"][row]) if "importance" in targets else 1.0
        weights += float(targets["policy_weight"][row])
        weight = importance * float(targets["policy_weight"][row])
        policy -= weight * sum(a * b for a, b in zip(p, log_q, strict=True))
        entropy -= weight * sum(math.exp(b) * b for b in log_q)
        target_entropy -= weight * sum(a * math.log(a) for a in p if a > 0)
        if soft_logits is not None:
            roots = [math.sqrt(math.sqrt(a)) for a in p]
            pairs = zip(roots, log_softmax(soft_logits[row].tolist()), strict=True)
            soft -= weight * sum(root / sum(roots) * b for root, b in pairs)
        outcome, search = float(targets["outcome"][row]), float(targets["search_value"][row])
        goal = (1 - config.value_mix) * outcome + config.value_mix * search
        value_loss += importance * (float(values[row]) - goal) ** 2 / rows
        value_error += abs(float(values[row]) - outcome) / rows
    scale = 1 / weights if weights else 0.0
    losses = {
        "policy_loss": policy * scale,
        "value_loss": value_loss,
        "policy_entropy": entropy * scale,
        "target_entropy": target_entropy * scale,
        "value_error": value_error,
    }
    loss = config.policy_weight * policy * scale + config.value_weight * value_loss
    if soft_logits is not None:
        losses["soft_policy_loss"] = soft * scale
        loss += soft_policy_weight * soft * scale
    return losses | {"loss": loss}


def zero_sum(values: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Return values [R, 2, H] from which each row's mean gain of both players is taken."""
    fair = np.array(values, np.float64)
    for pair, weights in zip(fair, ranges.astype(np.float64), strict=True):
        if weights.sum() > 0:
            pair[:] -= np.average(pair, weights=weights)
    return fair


def masked_huber_losses(values: np.ndarray, targets: Arrays, *, delta: float) -> dict[str, float]:
    loss = error = entries = 0.0
    for row, entry in np.argwhere(targets["mask"]):
        distance = abs(float(values[row, entry]) - float(targets["values"][row, entry]))
        huber = distance**2 / 2 if distance <= delta else delta * (distance - delta / 2)
        loss += float(targets["weight"][row]) * huber
        error += distance
        entries += 1
    return {"loss": loss / entries, "value_loss": loss / entries, "value_error": error / entries}


def slope(f: Callable[[np.ndarray], float], x: np.ndarray, *, step: float = 1e-5) -> np.ndarray:
    """Return the gradient of f at x from central differences, in float64."""
    gradient = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        ahead, behind = np.array(x, np.float64), np.array(x, np.float64)
        ahead[at] += step
        behind[at] -= step
        gradient[at] = (f(ahead) - f(behind)) / (2 * step)
    return gradient


def random_unrolls(
    rows: int, steps: int, *, seed: int, end_share: float = 0.2, invalid_share: float = 0.1
) -> dict[str, np.ndarray]:
    """Return rewards and ends: after most ends comes a step that only resets, after some the next episode at once.

    What must not be looked at, the numbers of a step that is not valid, is no number.
    """
    rng = np.random.default_rng(seed)
    terminated, truncated = np.zeros((2, rows, steps), bool)
    valid = rng.random((rows, steps)) >= invalid_share
    for row in range(rows):
        for t in range(steps):
            if t > 0 and (terminated[row, t - 1] or truncated[row, t - 1]):
                valid[row, t] = rng.random() < 0.3
            elif valid[row, t] and rng.random() < end_share:
                ends = terminated if rng.random() < 0.5 else truncated
                ends[row, t] = True
    reward = np.where(valid, rng.normal(0, 2, (rows, steps)), np.nan).astype(np.float32)
    return {"reward": reward, "terminated": terminated, "truncated": truncated, "valid": valid}
