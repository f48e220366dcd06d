"""ComPEFT: task vectors of three values, entropy coded."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import merge, tree, types
from wsl.codecs import _packed
from wsl.codecs._ternary import leaf as ternary

_ENTRIES = tree.Entries(lead=0, neutral=0.0)
# Mean and sum of squares that float32 holds with small parts of them.
_LEAST, _MOST = 1e-28, 1e37


def compeft(
  delta: types.Delta,
  *,
  density: Any,
  scale: float | str = 1.0,
  scope: str = 'global',
) -> _packed.Packed:
  r"""Compresses a task vector to signs of its largest entries and one number.

  .. math:: \hat\tau_p = a \, \sigma(\tau) \operatorname{sgn}(\tau_p) \,
    1[|\tau_p| \ge m]

  with m the k-th largest magnitude, k = floor(density d), and
  :math:`\sigma` the standard deviation of all d entries, zeros included. Places
  are stored as Rice codes of the gaps, signs as bits. With the share p of
  non-zeros the entropy is

  .. math:: H = -(1 - p) \log_2 (1 - p) - p \log_2 \tfrac{p}{2}

  bits an entry: 0.34 at p = 0.05, 0.57 at 0.1, 0.92 at 0.2. Rice codes take 0
  to 2 percent more.

  Args:
    delta: one task vector, every leaf ``[...]``, on demand or not; ``None``
      stays. Of ``deltas.Factors`` a and b are compressed, as in the paper.
    density: the fraction of entries that is kept, ``0 < density <= 1``; in
      scope ``'leaf'`` also one for each leaf, as in ``merge.trim``. The authors
      try 0.05 ... 0.5.
    scale: a > 0, tuned on validation data in the paper, from 0.5 ... 10; or
      ``'mean'``, which takes the mean magnitude of the kept entries in place of
      :math:`a \sigma`: of all numbers it has the least squared error (sparse
      ternary compression, a baseline of the paper). The
      coefficient of ``deltas.apply`` multiplies it, so that a sweep over a
      needs one pack.
    scope: ``'global'`` ranks over the whole model, with one :math:`\sigma` (the
      paper), ``'leaf'`` in each leaf.

  Returns:
    The pack, whose leaves are ``codecs.Ternary``; one leaf at a time is in
    memory besides. ``codecs.decode`` returns the task vector.

  Raises:
    ValueError: if an argument is out of range, or a leaf is complex, or has
      values that are not finite or that its dtype does not hold, naming it.

  Example:
    >>> import numpy as np
    >>> from wsl import codecs, tree
    >>> delta = {'w': np.asarray([1.0, -4.0, 3.0, 0.0], np.float32)}
    >>> packed = codecs.compeft(delta, density=0.5, scale='mean')
    >>> tree.read(codecs.decode(packed))['w'].tolist()
    [0.0, -3.5, 3.5, 0.0]

  Reference:
    Yadav et al., "ComPEFT: Compression for Communicating Parameter Efficient
    Updates via Sparsification and Quantization", 2023, arXiv:2311.13171.

  Differs from the official code in keeping ``k`` entries and those equal to the
  last, where that code keeps one more; and in writing files: that code measures
  the entropy only. Golomb codes are in the paper, their layout is our own.
  """
  is_factors = deltas_lib.is_factors
  opened = lambda x: {'a': x.a, 'b': x.b} if is_factors(x) else x
  weights = jax.tree.map(opened, delta, is_leaf=is_factors)
  _check_scale(scale)
  _check_leaves(weights)
  _packed.check_known('compeft', weights)
  tree.check_real('compeft', weights, 'only real ones have signs')
  tree.check_finite('compeft', weights, remedy='leave this model out')
  lazy = tree.defer(weights)
  stacks = tree.map(_lead, lazy)
  try:
    trimmed = merge.trim(stacks, density=density, scope=scope)
  except ValueError as error:
    raise ValueError(f'compeft: {error}') from None
  spread = None
  if scope == 'global' and scale != 'mean':
    spread = float(_deviation(jax.tree.leaves(lazy)))
  packed, sums = [], []
  for x, kept in zip(jax.tree.leaves(lazy), jax.tree.leaves(trimmed)):
    found = np.asarray(tree.read(kept))[0]
    magnitudes = np.abs(found.astype(tree.wide_dtype(found)))
    sums.append((np.sum(magnitudes, dtype=np.float64), np.sum(magnitudes > 0)))
    size = 0.0
    if scale != 'mean':
      size = float(scale) * (_deviation([x]) if spread is None else spread)
    packed.append(ternary.encode(found, size, np.dtype(x.dtype)))
  if scale == 'mean':
    means = _means(sums, scope)
    packed = [dataclasses.replace(p, value=m) for p, m in zip(packed, means)]
  names = tree.named(weights)
  leaves = jax.tree.unflatten(
    jax.tree.structure(weights),
    [_rounded(name, leaf) for name, leaf in zip(names, packed, strict=True)],
  )
  close = lambda old, new: (
    dataclasses.replace(old, **new) if is_factors(old) else new
  )
  leaves = jax.tree.map(close, delta, leaves, is_leaf=is_factors)
  return _packed.Packed(leaves, 'compeft')


def _check_scale(scale: float | str) -> None:
  """Checks the scale."""
  if isinstance(scale, str):
    if scale != 'mean':
      raise ValueError(f"compeft(scale={scale!r}): expected a number or 'mean'")
    return
  tree.check_scalars('compeft', scale=scale)
  if not 0 < scale < np.inf:
    raise ValueError(f'compeft(scale={scale}): expected a number above 0')


def _check_leaves(delta: types.Delta) -> None:
  """Checks that the leaves are arrays of floats."""
  for name, leaf in tree.named(delta).items():
    if not hasattr(leaf, 'dtype'):
      raise ValueError(
        f"compeft: leaf '{name}' is a {type(leaf).__name__}, no array"
      )
    if not tree.is_float(leaf):
      raise ValueError(
        f"compeft: leaf '{name}' has dtype {leaf.dtype}, no float: make it None"
      )


def _lead(x: types.Array) -> types.Array:
  return x[None]


def _deviation(leaves: list[Any]) -> float:
  """Returns the standard deviation of the entries of leaves, unbiased."""
  size = sum(int(x.size) for x in leaves)
  if size < 2:
    return 0.0
  unit = 1.0
  first, second = tree.total(_moments, leaves, entries=_ENTRIES, unit=unit)
  if not _LEAST < second / size < second < _MOST:
    # Squares leave the range of float32: take a power of two as the unit.
    read = lambda x: np.asarray(tree.read(x), np.float64)
    largest = max(np.max(np.abs(read(x)), initial=0.0) for x in leaves)
    unit = float(np.ldexp(1.0, int(np.frexp(largest)[1])))
    first, second = tree.total(_moments, leaves, entries=_ENTRIES, unit=unit)
  square = max(second - first * first / size, 0.0) / (size - 1)
  return float(np.sqrt(square)) * unit


def _moments(x: types.Array, *, unit: types.Scalar) -> types.Array:
  """Returns the sum of entries and that of their squares, in a unit."""
  wide = tree.wide(x)[None]
  wide = wide / jnp.asarray(unit).astype(wide.dtype)
  return jnp.concatenate(
    [tree.sum_entries(wide), tree.sum_entries(jnp.square(wide))]
  )


def _means(sums: list[Any], scope: str) -> list[float]:
  """Returns the mean magnitude of kept entries, of the model or each leaf."""
  table = np.asarray(sums, np.float64).reshape(-1, 2)
  if scope == 'global':
    table = np.broadcast_to(table.sum(0), table.shape)
  return [float(total / max(count, 1)) for total, count in table]


def _rounded(name: str, leaf: ternary.Ternary) -> ternary.Ternary:
  """Stores the value in the dtype in which the leaf is computed."""
  wide = tree.wide_dtype(np.dtype(leaf.dtype))
  with np.errstate(over='ignore'):
    held = np.asarray(leaf.value).astype(np.dtype(leaf.dtype))
  if not np.isfinite(held):
    raise ValueError(
      f"compeft: leaf '{name}' has the value {float(leaf.value):.3g}, which "
      f'{leaf.dtype} does not hold: lower scale=, or leave this model out'
    )
  return dataclasses.replace(leaf, value=np.asarray(leaf.value, wide))
