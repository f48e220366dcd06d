"""Parts of the experiment ``merge_lm``."""
