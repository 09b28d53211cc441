"""Turn experience into weights: loss, optimiser step, checkpoints, and the loop around them."""
