"""Parts of the experiment ``evolve``."""
