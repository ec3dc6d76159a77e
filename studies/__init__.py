"""The study of 7x7 and DCLS layers, `python -m studies.run`: tuned alike, paired, resumable, told from its records."""

import os

# Before torch is imported, as the command `torchdcls` does: threads that wait sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
