"""The parts of a session on a GPU: `python -m benchmarks.gpu_session`. They need torch, Triton and nothing else."""
