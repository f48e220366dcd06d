"""Parts of the experiment ``experts``."""
