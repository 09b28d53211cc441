"""Who takes part in a run: machines that join, leave, are taken away or run other code."""
