"""Torch modules, their arithmetic, and their weights as files; `networks.weights` needs no torch."""
