"""Out of core: the bank stays where it is, one row of it is read at a time."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.scale._bank import bank_rows, banks
from wsl.scale._coefs import cell_maps, coef_tree
from wsl.scale._compose import pull_back, sums


def value_and_gradient(
  objective: Callable[..., types.Array],
  base: types.Params,
  bank: banks.Bank,
  coefs: Any,
  batch: Any,
  key: types.PRNGKey,
  *,
  transform: Callable[[Any], Any],
  penalty: Callable[[Any], types.Array] | None = None,
) -> tuple[types.Array, Any]:
  r"""Returns the loss and its gradient in the coefficients.

  .. math:: \frac{\partial L}{\partial \lambda_{ij}} = \Bigl\langle
    \frac{\partial L}{\partial \theta_j}, \tau_{i,j} \Bigr\rangle

  The parameters are composed row by row, differentiated by one ordinary
  gradient, and the inner products are taken row by row: memory for the base,
  the parameters, their gradient and one row, whatever T is.

  So every row is read twice. The last leaves to be composed are the first to be
  pulled back, and the other way round in the next step: what the system still
  holds of a file is met again soonest.

  Args:
    objective: a ``jax.tree_util.Partial`` of (params, batch, key).
    base: the base, in memory or on demand.
    bank: T vectors; numpy arrays, leaves on demand, or device arrays.
    coefs: what is learned.
    batch: for the objective.
    key: for the objective.
    transform: from what is learned to coefficients.
    penalty: of coefficients, added to the loss.

  Returns:
    The loss, and the gradient like ``coefs``.
  """
  coefs_of, back = jax.vjp(transform, coefs)
  params = compose(base, bank, coefs_of)
  first = dict(bank.tied)
  scaled = {name: x for name, x in params.items() if name in bank.leaves}
  fixed = {
    name: x
    for name, x in params.items()
    if name not in scaled and first.get(name) not in scaled
  }
  layout = (bank.structure, tuple(params), bank.tied)
  loss, gradient = _value_and_grad(
    objective, scaled, fixed, batch, key, layout=layout
  )
  del params, scaled
  slope = pull_back.pull_back(bank, gradient, coefs_of)
  if penalty is not None:
    extra, rise = jax.value_and_grad(penalty)(coefs_of)
    loss = loss + jnp.asarray(extra, loss.dtype)
    slope = jax.tree.map(jnp.add, slope, rise)
  return loss, back(slope)[0]


def compose(
  base: types.Params, bank: banks.Bank, coefs: Any
) -> dict[str, types.Array]:
  """Composes leaf by leaf and row by row; returns parameters by name."""
  by_leaf = coef_tree.expand(coefs, bank)
  first = dict(bank.tied)
  params: dict[str, types.Array] = {}
  for name, x in tree.named(base).items():
    tied = first.get(name)
    if tied in bank.leaves:
      params[name] = params[tied]
      continue
    params[name] = x = jnp.asarray(tree.read(x))
    if name not in bank.leaves:
      continue
    cells, seed = coef_tree.cells_of(coefs, name)
    total = jnp.zeros(x.shape, tree.wide_dtype(x))
    for i, row in bank_rows.each(bank.leaves[name]):
      total = _add_row(
        total,
        by_leaf[name][i],
        row,
        cells=cells,
        seed=np.asarray(seed, np.uint32),
      )
    params[name] = _finish(x, total)
  return params


@functools.partial(jax.jit, static_argnames='cells', donate_argnums=0)
def _add_row(
  total: types.Array,
  coef: types.Array,
  row: Any,
  *,
  cells: cell_maps.Cells,
  seed: types.Array,
) -> types.Array:
  coef = coef.astype(total.dtype)
  members = cell_maps.draw(cells, seed, total.shape)
  return total + sums.scaled(coef, row, cells, members, total.shape)


@jax.jit
def _finish(base: types.Array, total: types.Array) -> types.Array:
  return (base.astype(total.dtype) + total).astype(base.dtype)


@functools.partial(jax.jit, static_argnames='layout')
def _value_and_grad(
  objective: Callable[..., types.Array],
  scaled: dict[str, types.Array],
  fixed: dict[str, types.Array],
  batch: Any,
  key: types.PRNGKey,
  *,
  layout: Any,
) -> tuple[types.Array, dict[str, types.Array]]:
  """Returns the loss and its gradient in the leaves of the bank, by name."""
  structure, names, tied = layout
  first = dict(tied)

  def loss(scaled: dict[str, types.Array]) -> types.Array:
    by_name = scaled | fixed
    leaves = [
      by_name[name if name in by_name else first[name]] for name in names
    ]
    return objective(jax.tree.unflatten(structure, leaves), batch, key)

  return jax.value_and_grad(loss)(scaled)
