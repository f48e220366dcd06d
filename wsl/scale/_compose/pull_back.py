"""Pull gradients with respect to weights back to coefficients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.scale._bank import bank_rows, banks
from wsl.scale._coefs import cell_maps, coef_tree
from wsl.scale._compose import sums


def pull_back(bank: banks.Bank, gradient: types.Params, coefs: Any) -> Any:
  r"""Computes the gradient with respect to the coefficients from the weights'.

  .. math:: \frac{\partial L}{\partial \lambda_{ij}} = \Bigl\langle
    \frac{\partial L}{\partial \theta_j}, \tau_{i,j} \Bigr\rangle

  The chain rule through theta = theta_0 + sum_i lambda_i tau_i: one ordinary
  gradient serves any number of vectors and any granularity. Leaves on demand,
  and numpy arrays, are read one leaf of one vector at a time.

  Args:
    bank: T task vectors.
    gradient: the gradient of a loss with respect to the weights, leaves
      ``[...]`` with the base's names; leaves that are not in the bank are
      ignored.
    coefs: the layout; the values are not used, as theta is linear in them.

  Returns:
    The gradient, with the structure of ``coefs``.

  Raises:
    ValueError: if the gradient lacks a leaf of the bank.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import scale
    >>> base = {'w': jnp.ones(2)}
    >>> bank = scale.bank(base, [{'w': jnp.asarray([2.0, 3.0])}])
    >>> coefs = scale.init(bank, by='task')
    >>> pull_back(bank, {'w': jnp.asarray([1.0, 10.0])}, coefs)['task'].tolist()
    [21.0]
  """
  tree.check_not_narrowed('pull_back', bank.leaves)
  # ``expand`` shares a block's coefficients among its leaves, so its transpose
  # sums the leaves' inner products over each block.
  by_leaf, back = jax.vjp(lambda c: coef_tree.expand(c, bank), coefs)
  summed = sum_tied(bank, tree.named(gradient))
  for name in bank.leaves:
    if name not in summed:
      raise ValueError(f"pull_back: the gradient has no leaf '{name}'")
  inner = {
    name: (
      _inner(
        bank.leaves[name], summed[name], coef, coef_tree.cells_of(coefs, name)
      )
      if name in bank.leaves
      else jnp.zeros_like(coef)
    )
    for name, coef in reversed(by_leaf.items())
  }
  return back(inner)[0]


def sum_tied(
  bank: banks.Bank, gradient: dict[str, types.Array]
) -> dict[str, types.Array]:
  """Adds the gradients of tied leaves to that of the first leaf."""
  summed = dict(gradient)
  for name, first in bank.tied:
    if first in bank.leaves and name in gradient:
      summed[first] = summed[first] + gradient[name]
  return summed


def _inner(
  leaf: Any,
  gradient: types.Array,
  coef: types.Array,
  cells: tuple[cell_maps.Cells, np.ndarray],
) -> types.Array:
  """Returns <gradient, row> for each vector and cell, ``[T, cells...]``."""
  kinds, seed = cells
  hyper = {'cells': kinds, 'seed': seed}
  if isinstance(leaf, jax.Array):
    return _inner_stack(gradient, coef, leaf, **hyper)
  if isinstance(leaf, bank_rows.LowRank) and isinstance(leaf.left, jax.Array):
    return _inner_stack(gradient, coef, leaf, **hyper)
  parts = [jnp.zeros_like(coef[0])] * len(coef)
  for i, row in bank_rows.each(leaf):
    parts[i] = _inner_row(gradient, coef[0], row, **hyper)
  return jnp.stack(parts)


@functools.partial(jax.jit, static_argnames='cells')
def _inner_stack(
  gradient: types.Array,
  coef: types.Array,
  stack: Any,
  *,
  cells: cell_maps.Cells,
  seed: types.Array,
) -> types.Array:
  """Computes the inner products with all rows of a stack in memory."""
  # The transpose of c -> sum_i c_i row_i maps a gradient to <gradient, row_i>,
  # summed over the entries of each cell.
  like = tree.wide(gradient)
  total = lambda c: sums.total_of(
    like, c, stack, at=None, cells=cells, seed=seed, shape=gradient.shape
  )
  return jax.vjp(total, coef)[1](like)[0]


@functools.partial(jax.jit, static_argnames='cells')
def _inner_row(
  gradient: types.Array,
  coef: types.Array,
  row: Any,
  *,
  cells: cell_maps.Cells,
  seed: types.Array,
) -> types.Array:
  """Computes the inner products with one row, one for each cell."""
  like = tree.wide(gradient)
  members = cell_maps.draw(cells, seed, gradient.shape)
  total = lambda c: sums.scaled(
    c.astype(like.dtype), row, cells, members, gradient.shape
  )
  return jax.vjp(total, coef)[1](like)[0]
