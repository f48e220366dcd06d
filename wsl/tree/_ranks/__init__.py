"""The k-th largest magnitude of a model, by counting."""
