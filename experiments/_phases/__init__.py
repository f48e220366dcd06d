"""Parts of the experiment ``phases``."""
