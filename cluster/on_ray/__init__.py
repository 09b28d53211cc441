"""The garment: plain parts as Ray actors, the program of them, and what goes between them."""
