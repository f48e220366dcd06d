"""Statistics of the entries of leaves: no data, no model function."""
