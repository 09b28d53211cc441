"""What a run is: its folder, its parts and workloads, and what each machine of it gets."""
