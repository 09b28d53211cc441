"""Decides what to play and when to train, keeps two trainings apart, and remembers where models come from."""
