"""Files of games to a model: reading, exporting, shuffling, fitting and evaluating, step by step."""
