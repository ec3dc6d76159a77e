"""Kernels out of elements in Triton: one program a kernel, where `..separable` takes a hundred operations.

Device code (`kernels`), launches (`launch`), and where Triton's programs can run at all (`support`), which convolutions
ask too. The first launch imports Triton.
"""
