"""Routes: which blocks of which networks, what they cost, how they run."""
