"""Linear combination of task vectors, with and without the base."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from wsl import tree, types
from wsl.scale._bank import bank_rows, banks, base_checks
from wsl.scale._coefs import cell_maps, coef_tree, transforms
from wsl.scale._compose import sums


def compose(
  base: types.Params,
  bank: banks.Bank,
  coefs: Any,
  *,
  transform: Callable[[Any], Any] = transforms.identity,
) -> types.Params:
  r"""Adds scaled task vectors to the base, each block with its own coefficient.

  .. math:: \theta_j = \theta_{0,j} + \sum_{i=1}^{T} \lambda_{ij} \tau_{i,j}

  Differentiable in all arguments, under ``jit``, ``vmap`` and sharding. Vectors
  are added one by one, so neither the result nor its gradient casts or copies
  the whole bank. Zero coefficients yield the base, a one-hot vector the model
  of ``deltas.apply``, equal coefficients task arithmetic.

  Args:
    base: the base of the bank, leaves ``[...]``.
    bank: T task vectors.
    coefs: from ``init``; or any tree that is a prefix of the parameters, with
      leaves ``[]`` or ``[T]``: ``0.3`` is one coefficient for all.
    transform: maps ``coefs`` to coefficients; see ``softmax``, ``line``.

  Returns:
    Parameters of the base's structure and dtypes. Integer leaves, and leaves in
    no vector, are the base's. Operands on demand yield leaves on demand.

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
  base_checks.check('compose', base, bank)
  coefs = transform(coefs)
  _check_wide('compose', bank, coefs)
  by_leaf = coef_tree.expand(coefs, bank)
  leaves = tree.named(base)
  composed = {
    name: _apply(_add, bank.leaves[name], coef, coefs, name, leaves[name])
    for name, coef in by_leaf.items()
    if name in bank.leaves
  }
  first = dict(bank.tied)

  def leaf(name: str, x: Any) -> Any:
    return composed.get(first.get(name, name), x)

  return tree.map_named(leaf, base)


def combine(bank: banks.Bank, coefs: Any) -> types.Delta:
  r"""Sums scaled task vectors, without the base.

  .. math:: \delta_j = \sum_i \lambda_{ij} \tau_{i,j}

  Args:
    bank: T task vectors.
    coefs: as for ``compose``.

  Returns:
    One task vector, leaves ``[...]`` in float32 or wider, for ``linearise`` and
    ``deltas.apply``; ``None`` at leaves that are in no vector.

  Raises:
    ValueError: if the coefficients do not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import scale
    >>> bank = scale.bank({'w': jnp.ones(2)}, [{'w': jnp.full(2, 3.0)}])
    >>> combine(bank, 0.5)['w'].tolist()
    [1.0, 1.0]
  """
  _check_wide('combine', bank, coefs)
  by_leaf = coef_tree.expand(coefs, bank)
  first = dict(bank.tied)
  found: dict[str, Any] = {}
  for name, shape, dtype in bank.specs:
    if name in bank.leaves:
      like = np.zeros((), tree.wide_dtype(np.dtype(dtype)))
      found[name] = _apply(
        sums.total_of,
        bank.leaves[name],
        by_leaf[name],
        coefs,
        name,
        like,
        shape=shape,
      )
    else:
      found[name] = found.get(first.get(name, ''))
  return jax.tree.unflatten(bank.structure, list(found.values()))


def _check_wide(function: str, bank: banks.Bank, coefs: Any) -> None:
  """Checks that a trace of the coefficients would not narrow float64."""
  if tree.is_traced(coefs):
    tree.check_not_narrowed(function, bank.leaves)


def _apply(
  kernel: Callable[..., Any],
  leaf: Any,
  coef: types.Array,
  coefs: Any,
  name: str,
  base: Any,
  **hyper: Any,
) -> Any:
  """Applies a kernel to one leaf of the bank: a stack, factors or rows."""
  cells, seed = coef_tree.cells_of(coefs, name)
  at: tuple[int, ...] | None = None
  rows: tuple[Any, ...] = (leaf,)
  if isinstance(leaf, tuple):
    at, rows = bank_rows.present(leaf)
  return tree.apply_kernel(
    kernel,
    base,
    coef,
    *rows,
    at=tree.Static(at),
    cells=tree.Static(cells),
    seed=seed,
    **{k: tree.Static(v) for k, v in hyper.items()},
  )


def _add(
  base: types.Array,
  coef: types.Array,
  *rows: Any,
  at: tuple[int, ...] | None,
  cells: cell_maps.Cells,
  seed: types.Array,
) -> types.Array:
  """Returns base + sum_i coef_i row_i in the base's dtype."""
  like = tree.wide(base)
  total = sums.total_of(
    like, coef, *rows, at=at, cells=cells, seed=seed, shape=base.shape
  )
  return (like + total).astype(base.dtype)
