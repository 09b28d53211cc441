"""Whether machines, storage and launch files are fit for a run, before and during one."""
