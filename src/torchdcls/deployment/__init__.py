"""Models that leave this library: to others, and to where they run."""
