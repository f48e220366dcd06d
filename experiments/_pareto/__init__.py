"""Parts of the experiment ``pareto``."""
