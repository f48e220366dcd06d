"""Models moved by elements of a gauge group, on the host."""

import jax
import numpy as np

from tests.align.gauges import networks as models
from wsl import align
from wsl.align._check import check, on_host


def host(params, dtype=np.float64):
  return {n: np.asarray(x, dtype) for n, x in models.values(params).items()}


def element(symmetry, seed, gauges=align.GAUGES):
  """Draws an element on the host: nothing is compiled."""
  g = {
    group.name: np.random.default_rng(seed).permuted(
      np.broadcast_to(
        np.arange(group.size), symmetry.table_shape(group.name)
      ).astype(np.int32),
      axis=-1,
    )
    for group in symmetry.groups
  }
  if 'permutation' not in gauges:
    g = align.identity(symmetry)
  actions = check._actions(symmetry, jax.random.key(seed))
  kind = lambda name: symmetry.action[name].kind
  return g | {n: x for n, x in actions.items() if kind(n) in gauges}


def move(params, g, symmetry):
  return on_host.permute(params, g, symmetry)


def distance(a, b):
  square = lambda x: float(np.square(np.asarray(x, np.float64)).sum())
  gap = sum(square(np.asarray(a[n], np.float64) - b[n]) for n in a)
  return np.sqrt(gap / sum(square(a[n]) for n in a))
