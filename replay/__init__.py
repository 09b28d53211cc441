"""Experience at rest: records, the buffer that keeps them, how rows are drawn from it. No torch, no ray."""
