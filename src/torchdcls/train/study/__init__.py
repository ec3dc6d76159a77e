"""The study of 7x7 and DCLS layers, `torchdcls study`: tuned, paired, resumable, and reported from its records alone."""
