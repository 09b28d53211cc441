"""The learning rate as a pure function of the steps taken."""

import math

from configs.schema import LearnerConfig


def learning_rate(config: LearnerConfig, learner_steps: int) -> float:
    """Return the rate of the step that follows `learner_steps` steps.

    It rises linearly to `learning_rate` over the first `warmup_steps` steps: Adam's second moments rest on
    few gradients then. After that, until `schedule_steps` (warm-up included):

    - "constant": it stays.
    - "cosine": it falls along half a cosine to `final_learning_rate_share` of itself.
    - "step": it stays, then drops to `final_learning_rate_share` of itself at once.

    From `schedule_steps` on it does not change any more.
    """
    if learner_steps < config.warmup_steps:
        return config.learning_rate * (learner_steps + 1) / config.warmup_steps
    final = config.final_learning_rate_share
    if config.schedule == "cosine":
        span = max(1, config.schedule_steps - config.warmup_steps)
        done = min(1.0, (learner_steps - config.warmup_steps) / span)
        return config.learning_rate * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))
    if config.schedule == "step" and learner_steps >= config.schedule_steps:
        return config.learning_rate * final
    return config.learning_rate


def rate_by_share(peak: float, share: float, *, warmup: float, final: float, steps_in_all: float) -> float:
    """Return the rate when a `share` in [0, 1] of what is to be learnt is used up.

    It rises to `peak` over the share `warmup`, and falls along half a cosine to `final` of itself.
    """
    # Half a step in, lest the first be none.
    rising = 1.0 if share >= warmup else (share + 0.5 / steps_in_all) / warmup
    return peak * min(1.0, rising) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share)))
