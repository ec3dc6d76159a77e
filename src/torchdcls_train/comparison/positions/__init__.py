"""The comparison of interpolations on taps at known places, `torchdcls compare positions`."""
