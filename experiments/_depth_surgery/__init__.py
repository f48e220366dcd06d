"""Growth, cuts and paths of a language model, for ``depth_surgery``."""
