"""Parts of the experiment ``compress``."""
