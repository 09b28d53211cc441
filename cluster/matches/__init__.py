"""Players against each other: matches, a person at the terminal, a model as a GTP program."""
