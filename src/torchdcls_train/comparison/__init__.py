"""The comparisons of `torchdcls compare`: a folder for each, and what they have in common."""
