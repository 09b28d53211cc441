"""What every folder may lean on: messages, names, files, seeds, metrics and errors. No torch, no ray."""
