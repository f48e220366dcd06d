"""Coefficients to weights, and gradients of weights to coefficients."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.scale import _bank, _base, _blocks, _cells, _transforms


def compose(
  base: types.Params,
  bank: _bank.Bank,
  coefs: Any,
  *,
  transform: Callable[[Any], Any] = _transforms.identity,
) -> types.Params:
  r"""Adds scaled task vectors to the base, each block with its own coefficient.

  .. math:: \theta_j = \theta_{0,j} + \sum_{i=1}^{T} \lambda_{ij} \tau_{i,j}

  Differentiable in everything, under ``jit``, ``vmap`` and on shards. Vectors
  are added one by one, so neither the result nor its gradient widens or copies
  the bank. Coefficients 0 give the base, a one-hot vector the model that
  ``deltas.apply`` gives, equal ones task arithmetic.

  Args:
    base: the base of the bank, leaves ``[...]``.
    bank: T task vectors.
    coefs: from ``init``; or any tree that is a prefix of the parameters, with
      leaves ``[]`` or ``[T]``: ``0.3`` is one coefficient for everything.
    transform: from what is learned to coefficients; see ``softmax``, ``line``.

  Returns:
    Parameters of the base's structure and dtypes. Leaves that no vector has,
    and integers, are the base's. If leaves are on demand, so are they here.

  Raises:
    ValueError: if the bank's base differs from the one given in names, shapes,
      dtypes or (outside a trace) values; if the coefficients do not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import scale
    >>> base = {'w': jnp.ones(2), 'b': jnp.zeros(2)}
    >>> bank = scale.bank(base, [{'w': jnp.full(2, 3.0), 'b': jnp.ones(2)}])
    >>> coefs = scale.init(bank, by='leaf', value=0.5)
    >>> {k: x.tolist() for k, x in compose(base, bank, coefs).items()}
    {'b': [0.5, 0.5], 'w': [2.0, 2.0]}

  Reference:
    Zhang et al., "Knowledge Composition using Task Vectors with Learned
    Anisotropic Scaling", 2024, arXiv:2407.02880.
  """
  _base.check('compose', base, bank)
  coefs = transform(coefs)
  by_leaf = _blocks.expand(coefs, bank)
  leaves = tree.named(base)
  composed = {
    name: _apply(_add, bank.leaves[name], coef, coefs, name, leaves[name])
    for name, coef in by_leaf.items()
    if name in bank.leaves
  }
  first = dict(bank.ties)

  def leaf(name: str, x: Any) -> Any:
    return composed.get(first.get(name, name), x)

  return tree.map_named(leaf, base)


def combine(bank: _bank.Bank, coefs: Any) -> types.Delta:
  r"""Adds scaled task vectors up, without a base.

  .. math:: \delta_j = \sum_i \lambda_{ij} \tau_{i,j}

  Args:
    bank: T task vectors.
    coefs: as for ``compose``.

  Returns:
    One task vector, leaves ``[...]`` in float32 or wider; ``None`` where no
    vector has a leaf. ``linearise`` and ``deltas.apply`` take it.

  Raises:
    ValueError: if the coefficients do not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import scale
    >>> bank = scale.bank({'w': jnp.ones(2)}, [{'w': jnp.full(2, 3.0)}])
    >>> combine(bank, 0.5)['w'].tolist()
    [1.0, 1.0]
  """
  by_leaf = _blocks.expand(coefs, bank)
  first = dict(bank.ties)
  found: dict[str, Any] = {}
  for name, shape, dtype in bank.specs:
    if name in bank.leaves:
      like = jnp.zeros((), wide(jnp.dtype(dtype)))
      found[name] = _apply(
        _sum, bank.leaves[name], by_leaf[name], coefs, name, like, shape=shape
      )
    else:
      found[name] = found.get(first.get(name, ''))
  return jax.tree.unflatten(bank.structure, list(found.values()))


def pull_back(bank: _bank.Bank, gradient: types.Params, coefs: Any) -> Any:
  r"""Turns a gradient in the weights into one in the coefficients.

  .. math:: \frac{\partial L}{\partial \lambda_{ij}} = \Bigl\langle
    \frac{\partial L}{\partial \theta_j}, \tau_{i,j} \Bigr\rangle

  One ordinary gradient serves any number of vectors and any granularity. Leaves
  on demand, and numpy arrays, are read one leaf of one vector at a time.

  Args:
    bank: T task vectors.
    gradient: of a loss in the weights, leaves ``[...]`` of the base's names;
      only the leaves of the bank are looked at.
    coefs: the layout; the values do not matter, the map is linear.

  Returns:
    The gradient, like ``coefs``.

  Raises:
    ValueError: if the gradient has no leaf that the bank has.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import scale
    >>> base = {'w': jnp.ones(2)}
    >>> bank = scale.bank(base, [{'w': jnp.asarray([2.0, 3.0])}])
    >>> coefs = scale.init(bank, by='task')
    >>> pull_back(bank, {'w': jnp.asarray([1.0, 10.0])}, coefs)['task'].tolist()
    [21.0]
  """
  by_leaf, back = jax.vjp(lambda c: _blocks.expand(c, bank), coefs)
  summed = sum_ties(bank, tree.named(gradient))
  for name in bank.leaves:
    if name not in summed:
      raise ValueError(f"pull_back: the gradient has no leaf '{name}'")
  inner = {
    name: (
      _inner(bank.leaves[name], summed[name], coef, cells_of(coefs, name))
      if name in bank.leaves
      else jnp.zeros_like(coef)
    )
    for name, coef in by_leaf.items()
  }
  return back(inner)[0]


def sum_ties(
  bank: _bank.Bank, gradient: dict[str, types.Array]
) -> dict[str, types.Array]:
  """Adds the gradients of tied leaves to that of the first."""
  summed = dict(gradient)
  for name, first in bank.ties:
    if first in bank.leaves and name in gradient:
      summed[first] = summed[first] + gradient[name]
  return summed


cells_of = _blocks.cells_of


def wide(dtype: np.dtype) -> np.dtype:
  """Returns the dtype that entries of ``dtype`` are computed in."""
  return dtype if dtype.itemsize >= 4 else np.dtype(np.float32)


def rows_of(leaf: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:
  """Returns the vectors that have a leaf kept as a tuple, and their rows."""
  at = tuple(i for i, row in enumerate(leaf) if row is not None)
  return at, tuple(leaf[i] for i in at)


def _apply(
  kernel: Callable[..., Any],
  leaf: Any,
  coef: types.Array,
  coefs: Any,
  name: str,
  base: Any,
  **hyper: Any,
) -> Any:
  """Calls a kernel on a leaf of the bank, of whatever kind it is."""
  cells, seed = cells_of(coefs, name)
  at: tuple[int, ...] | None = None
  rows: tuple[Any, ...] = (leaf,)
  if isinstance(leaf, tuple):
    at, rows = rows_of(leaf)
  return tree.apply_kernel(
    kernel,
    base,
    coef,
    *rows,
    at=tree.Static(at),
    cells=tree.Static(cells),
    seed=np.asarray(seed, np.uint32),
    **{k: tree.Static(v) for k, v in hyper.items()},
  )


def _add(
  base: types.Array,
  coef: types.Array,
  *rows: Any,
  at: tuple[int, ...] | None,
  cells: _cells.Cells,
  seed: types.Array,
) -> types.Array:
  """Returns base + sum_i coef_i row_i in the base's dtype."""
  like = tree.wide(base)
  total = _sum(
    like, coef, *rows, at=at, cells=cells, seed=seed, shape=base.shape
  )
  return (like + total).astype(base.dtype)


def _sum(
  like: types.Array,
  coef: types.Array,
  *rows: Any,
  at: tuple[int, ...] | None,
  cells: _cells.Cells,
  seed: types.Array,
  shape: tuple[int, ...],
) -> types.Array:
  """Returns sum_i coef_i row_i in the dtype of ``like``."""
  coef = coef.astype(like.dtype)
  if at is not None:
    total = jnp.zeros(shape, like.dtype)
    for i, row in zip(at, rows):
      total = total + scaled(coef[i], row, cells, seed, shape)
    return total
  (stack,) = rows
  if isinstance(stack, _bank.LowRank) and cells is None:
    return _product(coef, stack)

  def term(c: types.Array, stack: Any, i: types.Array) -> types.Array:
    row = jax.tree.map(
      lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False), stack
    )
    return scaled(c, row, cells, seed, shape)

  return weighted_sum(stack, coef, term, shape)


def weighted_sum(
  stack: Any,
  coef: types.Array,
  term: Callable[[types.Array, Any, types.Array], types.Array],
  shape: tuple[int, ...],
) -> types.Array:
  """Adds up ``term(coef[i], stack, i)``, one i at a time.

  Args:
    stack: an array ``[T, ...]``, or a ``LowRank`` of them.
    coef: ``[T, cells...]``.
    term: one vector's coefficients times its row of the stack, ``[...]``.
    shape: of the result.
  """

  # A loop must not carry what can be computed before it: XLA would widen the
  # whole stack there, on a CPU even where nothing asks for it.
  def add(total: types.Array, step: Any) -> tuple[types.Array, None]:
    c, i = step
    rows, i = jax.lax.optimization_barrier((stack, i))
    return total + term(c, rows, i), None

  # Rows are read again in the backward pass, not kept.
  add = jax.checkpoint(add, prevent_cse=False)
  zeros = jnp.zeros(shape, coef.dtype)
  index = jnp.arange(len(coef), dtype=np.int32)
  return jax.lax.scan(add, zeros, (coef, index))[0]


def scaled(
  coef: types.Array,
  row: Any,
  cells: _cells.Cells,
  seed: types.Array,
  shape: tuple[int, ...],
) -> types.Array:
  """Returns one vector's leaf, dense, times its coefficients."""
  if isinstance(row, _bank.LowRank):
    row = jnp.tensordot(
      row.left.astype(coef.dtype),
      row.right.astype(coef.dtype),
      1,
      precision='highest',
    )
  return _cells.spread(coef, cells, seed, shape) * row.astype(coef.dtype)


def _product(coef: types.Array, stack: _bank.LowRank) -> types.Array:
  """Returns the sum of scaled products as one product of rank T r."""
  left = stack.left.astype(coef.dtype)
  left = left * coef.reshape(coef.shape + (1,) * (left.ndim - 1))
  left = jnp.moveaxis(left, 0, -2)
  left = left.reshape(*left.shape[:-2], -1)
  right = stack.right.astype(coef.dtype)
  right = right.reshape(-1, *right.shape[2:])
  return jnp.tensordot(left, right, 1, precision='highest')


def _inner(
  leaf: Any,
  gradient: types.Array,
  coef: types.Array,
  cells: tuple[_cells.Cells, _cells.Seed],
) -> types.Array:
  """Returns <gradient, row> for each vector and cell, like ``coef``."""
  kinds, seed = cells
  hyper = {'cells': kinds, 'seed': np.asarray(seed, np.uint32)}
  if isinstance(leaf, jax.Array):
    return _inner_stack(gradient, coef, leaf, **hyper)
  if isinstance(leaf, _bank.LowRank) and isinstance(leaf.left, jax.Array):
    return _inner_stack(gradient, coef, leaf, **hyper)
  parts = [jnp.zeros_like(coef[0])] * len(coef)
  for i, row in enumerate_rows(leaf):
    parts[i] = _inner_row(gradient, coef[0], row, **hyper)
  return jnp.stack(parts)


def enumerate_rows(leaf: Any) -> Any:
  """Yields (i, row) of the vectors that have a leaf, reading it if need be."""
  if isinstance(leaf, tuple):
    for i, row in zip(*rows_of(leaf)):
      yield i, tree.read(row)
  elif isinstance(leaf, _bank.LowRank):
    for i in range(len(leaf.left)):
      yield i, _bank.LowRank(leaf.left[i], leaf.right[i])
  else:
    leaf = tree.read(leaf)
    for i in range(len(leaf)):
      yield i, leaf[i]


@functools.partial(jax.jit, static_argnames='cells')
def _inner_stack(
  gradient: types.Array,
  coef: types.Array,
  stack: Any,
  *,
  cells: _cells.Cells,
  seed: types.Array,
) -> types.Array:
  like = tree.wide(gradient)
  total = lambda c: _sum(
    like, c, stack, at=None, cells=cells, seed=seed, shape=gradient.shape
  )
  return jax.vjp(total, coef)[1](like)[0]


@functools.partial(jax.jit, static_argnames='cells')
def _inner_row(
  gradient: types.Array,
  coef: types.Array,
  row: Any,
  *,
  cells: _cells.Cells,
  seed: types.Array,
) -> types.Array:
  like = tree.wide(gradient)
  total = lambda c: scaled(
    c.astype(like.dtype), row, cells, seed, gradient.shape
  )
  return jax.vjp(total, coef)[1](like)[0]
