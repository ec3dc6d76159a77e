"""The comparison of 7x7 and DCLS layers on images, `torchdcls compare images`."""
