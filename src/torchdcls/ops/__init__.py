"""Functions: tensors in, tensors out."""
