"""The folder of a run: what is written to it, its checkpoints, and what is read from them."""
