"""Curvature of a loss: eigenvalues, trace and density of its Hessian."""
