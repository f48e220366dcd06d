"""From coefficients to weights, and from weight gradients back."""
