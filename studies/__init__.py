"""The study of 7x7 and DCLS layers, `python -m studies.run`: tuned alike, paired, resumable, told from its records."""

import os

# Before torch is imported, as the command `torchdcls` does: threads that wait soon sleep.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
