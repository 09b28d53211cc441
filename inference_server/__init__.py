"""One brain for many boards: positions in, evaluations out, batched across games, actors and machines."""
