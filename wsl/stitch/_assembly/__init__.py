"""Networks trained in modules, or assembled from blocks of others."""
