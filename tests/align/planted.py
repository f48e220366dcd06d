"""Models in a known random order, to be recovered."""

import jax

from wsl import align


def permuted(params, symmetry, *, seed):
  """Returns a randomly permuted model and the permutation that restores it."""
  g = align.random(symmetry, jax.random.key(seed), gauges=('permutation',))
  moving = align.permute(params, g, symmetry=symmetry)
  return moving, align.invert(g, symmetry=symmetry)
