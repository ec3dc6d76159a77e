"""The study of 7x7 and DCLS layers, `torchdcls study`: tuned alike, paired, resumable, told from its records."""
