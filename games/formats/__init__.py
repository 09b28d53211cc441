"""Files of games as text: read, written, and what is wrong with a line of them."""
