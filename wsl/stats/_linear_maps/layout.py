"""Operands and results of products, in the order that a weight is stored in."""

from collections.abc import Sequence
import math

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.stats._linear_maps import views


def rows(
  x: types.Array,
  batch: list[int],
  contract: list[int],
  blocks: views.Atoms,
  inputs: views.Atoms,
) -> types.Array:
  """Lays out x as ``[groups, rows, d]``, groups and d in the stored order."""
  free = [i for i in range(x.ndim) if i not in batch and i not in contract]
  x = tree.wide(x).transpose(*batch, *free, *contract)
  sizes = [a.size for a in blocks], [a.size for a in inputs]
  x = x.reshape(*sizes[0], -1, *sizes[1])
  middle = len(blocks)
  x = x.transpose(
    *_order(blocks), middle, *(middle + 1 + i for i in _order(inputs))
  )
  groups, d = (math.prod(size) for size in sizes)
  return x.reshape(groups, -1, d)


def results(y: types.Array, outputs: views.View, groups: int) -> types.Array:
  """Lays out y as ``[groups, rows, m]``, groups and m in the stored order."""
  atoms = views.flatten(outputs.dims)
  y = tree.wide(y).reshape([a.size for a in atoms])
  y = y.transpose(_order(atoms))
  count = math.prod(a.size for a in atoms if a.axis < 0)
  y = y.reshape(count, groups, -1)
  return jnp.swapaxes(y, 0, 1)


def _order(atoms: views.Atoms) -> list[int]:
  """Returns the transposition of atoms to the order of storage."""
  return sorted(range(len(atoms)), key=atoms.__getitem__)


def patches(
  x: types.Array,
  kernel: Sequence[int],
  out: Sequence[int],
  eqn: core.JaxprEqn,
) -> types.Array:
  """Cuts ``x [n, c, *space]`` to ``[n, c, out, kernel, out, kernel, ...]``.

  Patches are gathered, not convolved with unit kernels: a gather is exact in
  every dtype and at every matrix precision.
  """
  p = eqn.params
  low_high_inner = [
    (low, high, dilation - 1)
    for (low, high), dilation in zip(p['padding'], p['lhs_dilation'])
  ]
  zero = jnp.zeros((), x.dtype)
  # lhs_dilation inserts zeros between pixels, padding around them.
  x = jax.lax.pad(x, zero, [(0, 0, 0), (0, 0, 0), *low_high_inner])
  for i, (k, o) in enumerate(zip(kernel, out)):
    start = p['window_strides'][i] * np.arange(o)
    index = start[:, None] + p['rhs_dilation'][i] * np.arange(k)[None]
    x = jnp.take(x, index, axis=2 + 2 * i, mode='clip')
  return x
