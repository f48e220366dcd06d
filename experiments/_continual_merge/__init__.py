"""Parts of the experiment ``continual_merge``."""
