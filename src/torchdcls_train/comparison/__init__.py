"""The comparison of 7x7 and DCLS layers, `torchdcls compare`."""
