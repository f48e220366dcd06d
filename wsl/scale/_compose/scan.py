"""Composition of stacked layers inside the scan that applies them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.scale._bank import bank_rows, banks, base_checks
from wsl.scale._coefs import cell_maps, coef_tree
from wsl.scale._compose import sums


def scan(
  block: Callable[[types.Params, Any], Any],
  carry: Any,
  base: types.Params,
  bank: banks.Bank,
  coefs: Any,
) -> Any:
  r"""Applies a stack of layers, composing each layer when it is applied.

  .. math:: h_{l+1} = f(h_l; \theta_{0,l} + \textstyle\sum_i \lambda_{il}
    \tau_{i,l})

  For models whose layers are stacked, ``[L, ...]``, and scanned over. Only one
  layer's composed weights are in memory at a time; the backward pass recomputes
  them. The bank keeps its layout, ``[T, L, ...]``. Parameters that are not
  stacked need a separate bank and ``compose``.

  Args:
    block: maps (one layer's parameters, carry) to the next carry.
    carry: the input of the first layer.
    base: the stacked layers, every leaf ``[L, ...]``.
    bank: task vectors of ``base``, each with every leaf, in memory: as a stack,
      or as ``LowRank`` factors, the left one with an axis of layers, the right
      one shared by all layers.
    coefs: shared by the layers (``'all'``, ``'task'``, ``'leaf'``), or one for
      each layer: ``init(bank, by=('channel', 0))``.

  Returns:
    The output of the last layer.

  Raises:
    ValueError: if the bank does not fit the base, a leaf is of another kind,
      or the coefficients split anything but layers.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import scale
    >>> base = {'w': jnp.ones((3, 2))}  # three layers
    >>> bank = scale.bank(base, [{'w': jnp.full((3, 2), 2.0)}])
    >>> coefs = scale.init(bank, by=('channel', 0), value=1.0)
    >>> scan(lambda p, h: p['w'] * h, jnp.ones(2), base, bank, coefs).tolist()
    [8.0, 8.0]
  """
  base_checks.check('scan', base, bank)
  tree.check_not_narrowed('scan', base)
  sizes = {shape[:1] for _, shape, _ in bank.specs}
  if len(sizes) != 1 or sizes == {()}:
    raise ValueError(
      f'scan: leaves have leading axes {sorted(sizes)}, expected one number of '
      'layers: give the stacked layers alone'
    )
  ((layers,),) = sizes
  by_leaf = {
    name: _by_layer(name, coef, coef_tree.cells_of(coefs, name)[0], layers)
    for name, coef in coef_tree.expand(coefs, bank).items()
    if name in bank.leaves
  }
  for name, leaf in bank.leaves.items():
    _check(name, leaf)
  first = dict(bank.tied)

  def body(carry: Any, layer: Any) -> tuple[Any, None]:
    index, coefs_of = layer

    def leaf(name: str, x: types.Array) -> types.Array:
      name = first.get(name, name)
      x = jax.lax.dynamic_index_in_dim(x, index, 0, keepdims=False)
      if name not in bank.leaves:
        return x
      return _layer(x, bank.leaves[name], coefs_of[name], index)

    return block(tree.map_named(leaf, base), carry), None

  # Reverse mode through a scan would store every layer's composed weights as
  # residuals. ``checkpoint`` stores the carry alone and recomposes the layer in
  # the backward pass. A scan cannot be merged by common subexpression
  # elimination, so its barriers are not needed.
  steps = (jnp.arange(layers, dtype=np.int32), by_leaf)
  body = jax.checkpoint(body, prevent_cse=False)
  return jax.lax.scan(body, carry, steps)[0]


def _by_layer(
  name: str, coef: types.Array, cells: cell_maps.Cells, layers: int
) -> types.Array:
  """Returns coefficients ``[L, T]``."""
  if cells is None:
    return jnp.broadcast_to(coef[None], (layers, len(coef)))
  if cells == cell_maps.Axis(0, layers):
    return coef.T
  raise ValueError(
    f"scan: coefficients of leaf '{name}' split more than its layers: init "
    "by=('channel', 0)"
  )


def _check(name: str, leaf: Any) -> None:
  """Checks that a leaf is in memory, with its axis of layers in front."""
  if isinstance(leaf, tuple) or tree.on_demand(leaf):
    raise ValueError(
      f"scan: leaf '{name}' is no stack [T, L, ...]: read it, and give it to "
      'every vector, or leave it out of the bank'
    )
  if isinstance(leaf, bank_rows.LowRank) and leaf.left.ndim < 3:
    raise ValueError(
      f"scan: leaf '{name}' has its layers in the right factor: expected a "
      'left one [T, L, ..., r]'
    )


def _layer(
  base: types.Array, stack: Any, coef: types.Array, index: types.Array
) -> types.Array:
  """Returns one layer of one leaf, composed."""
  like = tree.wide(base)

  def term(c: types.Array, stack: Any, i: types.Array) -> types.Array:
    row = (
      bank_rows.LowRank(_at(stack.left, i, index), _at(stack.right, i))
      if isinstance(stack, bank_rows.LowRank)
      else _at(stack, i, index)
    )
    return sums.scaled(c, row, None, None, base.shape)

  total = sums.weighted_sum(stack, coef.astype(like.dtype), term, base.shape)
  return (like + total).astype(base.dtype)


def _at(x: types.Array, *place: types.Array) -> types.Array:
  """Returns ``x[place]`` as one slice over all indexed axes."""
  rest = x.shape[len(place) :]
  starts = place + (np.int32(0),) * len(rest)
  sizes = (1,) * len(place) + rest
  return jax.lax.dynamic_slice(x, starts, sizes).reshape(rest)
