"""Out of core: the bank is not loaded; rows are read one at a time."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import auxiliary, tree, types
from wsl.scale._bank import bank_rows, banks
from wsl.scale._coefs import cell_maps, coef_tree
from wsl.scale._compose import pull_back, sums


def value_and_gradient(
  objective: Callable[..., types.Array],
  base: types.Params,
  bank: banks.Bank,
  coefs: Any,
  aux: types.Tree,
  batch: Any,
  key: types.PRNGKey,
  *,
  transform: Callable[[Any], Any],
  penalty: Callable[[Any], types.Array] | None = None,
) -> tuple[tuple[types.Array, types.Tree], Any]:
  r"""Returns the loss, the auxiliary state and the coefficients' gradient.

  .. math:: \frac{\partial L}{\partial \lambda_{ij}} = \Bigl\langle
    \frac{\partial L}{\partial \theta_j}, \tau_{i,j} \Bigr\rangle

  This is the chain rule, as theta is linear in lambda. The parameters are
  composed row by row and differentiated by one ordinary gradient, and the inner
  products are computed row by row. Memory holds the base, the parameters, their
  gradient and one row, independent of T.

  Every row is read twice. Leaves are pulled back in the reverse order of
  composition, so that the most recently read parts of a file, which the
  operating system still caches, are read first.

  Args:
    objective: a ``jax.tree_util.Partial`` of (params, batch, key).
    base: the base, in memory or on demand.
    bank: T vectors; numpy arrays, leaves on demand, or device arrays.
    coefs: the learned parameters.
    aux: the auxiliary state, passed to the objective if it is not ``None``.
    batch: passed to the objective.
    key: passed to the objective.
    transform: maps ``coefs`` to coefficients.
    penalty: a function of the coefficients, added to the loss.

  Returns:
    The loss and the new auxiliary state; and the gradient, with the structure
    of ``coefs``.
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
  (loss, aux), gradient = _value_and_grad(
    objective, scaled, fixed, aux, batch, key, layout=layout
  )
  del params, scaled
  slopes = pull_back.pull_back(bank, gradient, coefs_of)
  if penalty is not None:
    value, more = jax.value_and_grad(penalty)(coefs_of)
    loss = loss + jnp.asarray(value, loss.dtype)
    slopes = jax.tree.map(jnp.add, slopes, more)
  return (loss, aux), back(slopes)[0]


def compose(
  base: types.Params, bank: banks.Bank, coefs: Any
) -> dict[str, types.Array]:
  """Composes leaf by leaf and row by row; returns the parameters by name."""
  tree.check_not_narrowed('compose', base)
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
        seed=seed,
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
  """Adds one scaled row to the running sum, in place."""
  coef = coef.astype(total.dtype)
  members = cell_maps.draw(cells, seed, total.shape)
  return total + sums.scaled(coef, row, cells, members, total.shape)


@jax.jit
def _finish(base: types.Array, total: types.Array) -> types.Array:
  """Adds the sum to the base, in the base's dtype."""
  return (base.astype(total.dtype) + total).astype(base.dtype)


@functools.partial(jax.jit, static_argnames='layout')
def _value_and_grad(
  objective: Callable[..., types.Array],
  scaled: dict[str, types.Array],
  fixed: dict[str, types.Array],
  aux: types.Tree,
  batch: Any,
  key: types.PRNGKey,
  *,
  layout: Any,
) -> tuple[tuple[types.Array, types.Tree], dict[str, types.Array]]:
  """Returns the loss and its gradient with respect to the scaled leaves."""
  structure, names, tied = layout
  first = dict(tied)

  def loss(scaled: dict[str, types.Array]) -> tuple[types.Array, types.Tree]:
    by_name = scaled | fixed
    leaves = [
      by_name[name if name in by_name else first[name]] for name in names
    ]
    params = jax.tree.unflatten(structure, leaves)
    return auxiliary.loss_and_aux(
      objective, params, aux, batch, key, caller='fit', start='fit'
    )

  return jax.value_and_grad(loss, has_aux=True)(scaled)
