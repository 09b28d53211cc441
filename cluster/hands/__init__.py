"""Poker: samples of solved hands, networks fitted to them, and solving with these."""
