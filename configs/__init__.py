"""What a run is: the sections, how they are loaded, and the presets. No logic, no torch, no ray."""
