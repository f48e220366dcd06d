"""PLeaS: merge some units, keep the others separate, refit the layers."""
