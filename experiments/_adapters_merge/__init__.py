"""Parts of the experiment ``adapters_merge``."""
