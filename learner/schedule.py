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
