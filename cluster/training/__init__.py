"""A run from its command to its end: `train`, `selfplay`, `demo`, on Ray or in one process."""
