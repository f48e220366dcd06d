"""Coefficients to weights, and gradients of weights back."""
