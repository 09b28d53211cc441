"""A daemon to test against, to measure with, and to copy from."""
