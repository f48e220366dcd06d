"""PLeaS: merge some units, keep others separate, refit the layers."""
