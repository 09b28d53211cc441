"""`train --auto`: the loop that trains several games, what keeps it going, and what it says of itself."""
