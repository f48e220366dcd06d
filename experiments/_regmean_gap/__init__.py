"""Parts of the experiment ``regmean_gap``."""
