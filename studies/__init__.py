"""The study of 7x7 and DCLS layers, `python -m studies.run`: tuned alike, paired, resumable, told from its records."""
