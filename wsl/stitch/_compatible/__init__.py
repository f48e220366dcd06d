"""Compatible representations: translation, BCT, BT^2, d-Simplex, retrieval."""
