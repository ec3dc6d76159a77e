"""Kernels out of elements in Triton: one program for each kernel instead of a hundred operations of torch.

`kernels` has the device code, `launch` the launches, and `support` says which kernels they can make. The first launch
imports Triton.
"""
