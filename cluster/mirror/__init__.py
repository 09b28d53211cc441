"""A copy of a run elsewhere, brought up to date while it goes on, and restored from."""
