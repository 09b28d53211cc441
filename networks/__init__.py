"""Torch modules, the arithmetic they run in, and their weights as files (`networks.weights` needs no torch)."""
