"""`tamen bench`: what is measured, and the rigs that measure it."""
