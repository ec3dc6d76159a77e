"""The comparison of delays on spoken digits, `torchdcls compare digits`."""
