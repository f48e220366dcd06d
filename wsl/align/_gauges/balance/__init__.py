"""The representative of smallest norm under scales and linear maps."""
