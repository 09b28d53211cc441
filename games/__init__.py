"""Rules: board games as numpy and numba over pools of states. No torch, no ray."""
