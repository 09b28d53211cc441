"""What commands have in common: the terminal, progress, stopping, addresses."""
