"""Statistics of task vectors, leaf by leaf: how far models agree."""

from collections.abc import Iterator
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types

_ENTRIES = tree.Entries(lead=1, neutral=0.0)
# Columns of a matrix, a table of tokens for example, that are in float64.
_BLOCK = 1 << 12


class LeafStatistics(NamedTuple):
  """Statistics of the task vectors of one leaf, float64 on the host.

  Attributes:
    cosine: of each pair of task vectors, ``[T, T]``; NaN where one is zero
      or not finite.
    sign_conflict: the share of mass against the elected sign, 0 .. 1/2; NaN if
      all task vectors are zero.
    norm_ratio: the norm of each task vector divided by the base's, ``[T]``; inf
      or NaN where the base's is zero, NaN without a base.
    effective_rank: of each matrix, ``[T, B]``, 1 .. min(m, n); NaN for a zero
      matrix, and for one with a value that is not finite. None if the leaf is
      no matrix, or ranks were not asked for.
    stable_rank: of each matrix, ``[T, B]``, 1 .. its rank; else as before.
  """

  cosine: np.ndarray
  sign_conflict: float
  norm_ratio: np.ndarray
  effective_rank: np.ndarray | None
  stable_rank: np.ndarray | None


def leaf_statistics(
  deltas: types.Deltas,
  base: types.Params | None = None,
  *,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'mean',
  ranks: bool = True,
) -> Iterator[tuple[str, LeafStatistics]]:
  r"""Computes how far task vectors agree, and their ranks, leaf by leaf.

  Of the task vectors :math:`\tau_t` of a leaf, with positive and negative mass
  :math:`m^\pm_p = \sum_t \max(\pm\tau_{t,p}, 0)` at entry p,

  .. math::
    \cos_{st} = \frac{\langle \tau_s, \tau_t \rangle}{\|\tau_s\| \|\tau_t\|},
    \quad
    r_t = \frac{\|\tau_t\|}{\|\theta_0\|}, \quad
    c = \frac{\sum_p \min(m^+_p, m^-_p)}{\sum_p (m^+_p + m^-_p)}
      = \frac{1}{2} - \frac{\sum_p |\sum_t \tau_{t,p}|}
                           {2 \sum_p \sum_t |\tau_{t,p}|}.

  The sign conflict c is the share of mass against the sign that TIES elects: 0
  if all models change each entry in one direction, 1/2 if the changes cancel.
  It is the second form for complex leaves. Of a matrix with singular values
  :math:`\sigma_i`, the effective and the stable rank are

  .. math::
    \exp\Big(-\sum_i p_i \log p_i\Big), \; p_i = \frac{\sigma_i}{\sum_j
    \sigma_j}, \qquad \frac{\sum_i \sigma_i^2}{\max_i \sigma_i^2}.

  Sums are in float64. Leaves in files are read in chunks, and matrices once
  more as a whole for their ranks, which take nearly all of the time: about 5
  seconds of a processor for a matrix ``[4096, 4096]``.

  Args:
    deltas: stacked task vectors, leaves ``[T, ...]``, in memory or on demand;
      T may differ between leaves. ``None`` leaves are left out.
    base: the model that they start from, leaves ``[...]``; None leaves the norm
      ratio out, and ``deltas`` may then be a stack of models.
    matrices: which leaves are matrices, and in which view; see ``tree.views``.
    otherwise: leaves of more than two axes without a rule: ``'mean'``, they
      have no ranks, or ``'refuse'``; see ``tree.views``.
    ranks: whether ranks are computed.

  Yields:
    The name and the statistics of each leaf, numbers in names in order. Nothing
    is read before its leaf is asked for.

  Raises:
    ValueError: if a leaf is no stack of floats, the base does not fit, or as
      ``tree.views``, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import deltas as deltas_lib
    >>> base = {'w': jnp.eye(2)}
    >>> models = [{'w': 2 * jnp.eye(2)}, {'w': jnp.diag(jnp.asarray([2., 0.]))}]
    >>> stack = deltas_lib.stack(base, models)
    >>> ((name, found),) = leaf_statistics(stack, base)
    >>> name, found.sign_conflict, found.norm_ratio.tolist()
    ('w', 0.25, [1.0, 1.0])
    >>> found.cosine[0].tolist(), found.effective_rank.round(6).tolist()
    ([1.0, 0.0], [[2.0], [2.0]])

  References:
    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models",
    2023, arXiv:2306.01708 (elected sign);
    Roy and Vetterli, "The Effective Rank: A Measure of Effective
    Dimensionality", 2007.
  """
  leaves = tree.named(deltas)
  views = _views(leaves, matrices, otherwise)
  bases: dict[str, Any] = {}
  if base is not None:
    bases, _ = tree.common(leaves, base)
    for name, x in leaves.items():
      found = tuple(bases[name].shape) if name in bases else None
      if found != tuple(x.shape[1:]):
        raise ValueError(
          f"leaf_statistics: leaf '{name}' of a task vector has shape "
          f'{tuple(x.shape[1:])}, of the base {found}: give the base of the '
          'stack'
        )
  # Checks are done by the call, and reads by the iteration.
  return _each(leaves, bases, views if ranks else {})


def _each(
  leaves: dict[str, Any], bases: dict[str, Any], views: dict[str, tree.Matrix]
) -> Iterator[tuple[str, LeafStatistics]]:
  """Computes the statistics of leaves in order."""
  for name in tree.in_order(leaves):
    yield name, _of_leaf(leaves[name], bases.get(name), views.get(name))


def _views(
  leaves: dict[str, Any], matrices: tree.Matrices | None, otherwise: str
) -> dict[str, tree.Matrix]:
  """Returns the views of the matrices, and checks every stack."""
  for name, x in leaves.items():
    if not tree.is_float(x) or not x.shape or not x.shape[0]:
      raise ValueError(
        f"leaf_statistics: leaf '{name}' of {x.dtype}{list(x.shape)} is no "
        'stack of floats: stack models by deltas.stack'
      )
  one = {
    k: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for k, x in leaves.items()
  }
  try:
    found = tree.views(one, matrices, otherwise=otherwise)
  except ValueError as error:
    raise ValueError(f'leaf_statistics: {error}') from None
  return {k: v for k, v in found.items() if v is not None and v.is_matrix}


def _of_leaf(x: Any, base: Any, view: tree.Matrix | None) -> LeafStatistics:
  """Computes the statistics of one stack ``[T, ...]``."""
  models = x.shape[0]
  wide = np.dtype(np.complex128 if tree.is_complex(x) else np.float64)
  hyper = {'models': tree.Static(models), 'dtype': tree.Static(wide)}
  stack = x if base is None else tree.apply_kernel(_append, x, base)
  sums = tree.total(_sums, stack, entries=_ENTRIES, **hyper)
  mass, net, products = sums[0], sums[1], sums[2:]
  products = products.reshape(2 * [stack.shape[0]])
  norms = np.sqrt(np.diagonal(products))
  defined = np.isfinite(norms) & (norms > 0)
  with np.errstate(divide='ignore', invalid='ignore'):
    cosine = np.clip(products / norms / norms[:, None], -1, 1)
    np.fill_diagonal(cosine, np.where(defined, 1.0, np.nan))
    ratio = norms[:models] / (norms[-1] if base is not None else np.nan)
    conflict = float((mass - net) / mass / 2)
  ranks: tuple[Any, Any] = None, None
  if view is not None and x.size:
    split = tree.apply_kernel(_split, x, view=tree.Static(view))
    ranks = _ranks(np.asarray(tree.read(split)))
  return LeafStatistics(cosine[:models, :models], conflict, ratio, *ranks)


def _append(x: types.Array, base: types.Array) -> types.Array:
  """Appends the base to a stack."""
  wide = tree.wide_dtype(x, base)
  return jnp.concatenate([x.astype(wide), base.astype(wide)[None]])


def _sums(x: types.Array, *, models: int, dtype: np.dtype) -> types.Array:
  """Returns sums of magnitudes, of the magnitude of sums, and all products."""
  x = x.reshape(x.shape[0], -1).astype(dtype)
  # Unrolled over T: XLA reduces a leading axis on a CPU by a scalar loop.
  each = list(jnp.unstack(x))[:models]
  mass = functools.reduce(jnp.add, map(jnp.abs, each))
  net = jnp.abs(functools.reduce(jnp.add, each))
  products = tree.matmul(x.conj(), x.T).real
  return jnp.concatenate(
    [tree.sum_entries(jnp.stack([mass, net])), products.reshape(-1)]
  )


def _split(x: types.Array, *, view: tree.Matrix) -> types.Array:
  """Returns the matrices ``[T, B, m, n]`` of a stack."""
  return view.split(tree.wide(x), models=1)


def _ranks(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns effective and stable ranks ``[T, B]`` of ``[T, B, m, n]``."""
  shape = matrices.shape[:2]
  found = [_rank(x) for x in matrices.reshape(-1, *matrices.shape[2:])]
  effective, stable = zip(*found)
  return np.reshape(effective, shape), np.reshape(stable, shape)


def _rank(x: np.ndarray) -> tuple[float, float]:
  """Returns effective and stable rank of one matrix, in float64.

  The eigenvalues of its Gram matrix are the squares of the singular values,
  right to eps times the largest, that is for singular values down to 1e-8 of
  the largest. They take a third of the time of the singular values.
  """
  x = x if x.shape[0] <= x.shape[1] else x.T
  wide = np.promote_types(x.dtype, np.float64)
  gram = np.zeros((len(x), len(x)), wide)
  for i in range(0, x.shape[1], _BLOCK):
    part = x[:, i : i + _BLOCK].astype(wide)
    gram += part @ part.conj().T
  if not np.isfinite(gram).all():
    return np.nan, np.nan
  squares = np.linalg.eigvalsh(gram)
  largest = squares[-1]
  if not largest > 0:
    return np.nan, np.nan
  squares = squares[squares > len(x) * np.finfo(np.float64).eps * largest]
  p = np.sqrt(squares) / np.sum(np.sqrt(squares))
  return float(np.exp(-np.sum(p * np.log(p)))), float(squares.sum() / largest)
