"""From a traced function to its symmetry group."""
