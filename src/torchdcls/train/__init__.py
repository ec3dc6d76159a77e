"""Training: helpers for any loop, the engine of `torchdcls train`, its data, and the comparison of methods."""
