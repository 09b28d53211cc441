"""Make experience: self-play and matches. No torch, no ray."""
