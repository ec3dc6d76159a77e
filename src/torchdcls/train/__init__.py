"""Training: helpers for any loop, and the comparison of methods."""
