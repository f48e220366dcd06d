"""LoRA-LEGO: merges LoRAs by clusters of their rank-one units."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.adapters import _checks, _clusters


def lego(
  deltas: types.Deltas,
  *,
  rank: int | None = None,
  invariant: bool = False,
  norms: bool = True,
  outputs: bool = True,
) -> types.Delta:
  r"""Merges LoRAs by k-means of the rank-one units of which they consist.

  With :math:`s_t B_t A_t = \sum_j b_{tj} a_{tj}^\top`, where each unit
  :math:`m_{tj} = (a_{tj}, b_{tj})` contains the root of the scale:

  .. math:: \min_C \sum_{c=1}^{k} \sum_{m \in C_c} |m - \mu_c|^2, \qquad
    (a_c, b_c) = \frac{\operatorname{mean}_{m \in C_c} |m|}{|\mu_c|} \, \mu_c,
    \qquad \tau = \sqrt{r / k} \, \sum_{c=1}^{k} b_c a_c^\top

  where r is the mean rank. All N units of a leaf are clusters of their own if
  k >= N; then the sum is that of the LoRAs, times :math:`\sqrt{r / N}`.

  Clustering is deterministic: the first centres are the units that reduce the
  objective most, one after another. The result does not depend on the order of
  LoRAs or of their ranks, except for ties. Units are compared by their Gram
  matrix, so that the cost of a step does not depend on the size of the leaf.

  Args:
    deltas: ``adapters.stack`` of T LoRAs, of equal or different ranks and
      scales; leaves that are arrays, ``[T, ...]``, are averaged.
    rank: k >= 1, the rank of the result; by default the largest of the T. A
      leaf of N < k units has rank N, filled with zeros up to ``min(k, T r)``.
    invariant: whether units are compared up to the factor c of
      :math:`(c \, a, b / c)`, which is no property of their product: both parts
      are scaled to equal norms, and a unit is in a cluster with either sign.
      The paper compares them as they are.
    norms: whether each centre gets the mean norm of the members of its cluster.
      A centre that is zero, as its members cancel, stays zero.
    outputs: whether the result is scaled by :math:`\sqrt{r / k}`, which keeps
      the variance of the output of independent units. Empty clusters do not
      count.

  Returns:
    A tree of ``Factors`` with scale 1; means of arrays.

  Raises:
    ValueError: if ``rank`` is out of range, no leaf is in factors, or one is
      complex or not a stack; or an array is of integers.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(0,), columns=(1,))
    >>> one = lambda a, b: {'w': adapters.Factors(
    ...   jnp.asarray([a]), jnp.asarray([b]), 1.0, (2, 1), view)}
    >>> pool = adapters.stack([one([3.0, 4.0], [0.0]), one([3.0, 4.0], [2.0])])
    >>> merged = lego(pool, rank=1, norms=False)['w']
    >>> merged.a.tolist(), merged.b.tolist()
    ([[3.0, 4.0]], [[1.0]])

  Reference:
    Zhao et al., "Merging LoRAs like Playing LEGO: Pushing the Modularity of
    LoRA to Extremes Through Rank-Wise Clustering", 2024, arXiv:2409.16167.

  No official code was found: a reconstruction. The norm is that of a unit as a
  whole, not of its halves, and the factor of outputs follows from their
  variance. ``invariant`` and the choice of the first centres are of this
  library.
  """
  _checks.whole('lego', rank=rank)
  leaves = tree.named(deltas, is_leaf=deltas_lib.is_factors)
  factored = {k: x for k, x in leaves.items() if deltas_lib.is_factors(x)}
  if not factored:
    raise ValueError(
      'lego: no leaf is in factors: give adapters.stack of LoRAs, of '
      'adapters.extract if they are dense'
    )
  for name, x in leaves.items():
    if name not in factored and not tree.is_float(x):
      raise ValueError(
        f"lego: leaf '{name}' is {x.dtype}: only floats are averaged, make it "
        'None'
      )
  for name, x in factored.items():
    if not x.stacked:
      raise ValueError(
        f"lego: leaf '{name}' is of one LoRA: give adapters.stack of them"
      )
    tree.check_real('lego', {name: x.a}, 'only real units are clustered')
  hyper = {
    'invariant': tree.Static(invariant),
    'norms': tree.Static(norms),
    'outputs': tree.Static(outputs),
  }

  def merge(x: Any) -> Any:
    if not deltas_lib.is_factors(x):
      return tree.apply_kernel(_mean, x)
    units = x.a.shape[0] * x.rank
    count = min(x.rank if rank is None else rank, units)
    mixing = tree.apply_kernel(
      _mixing, x.a, x.b, x.scale, count=tree.Static(count), **hyper
    )
    a = tree.apply_kernel(_mix, x.a, mixing, half=tree.Static(0))
    b = tree.apply_kernel(_mix, x.b, mixing, half=tree.Static(1))
    return dataclasses.replace(x, a=a, b=b, scale=1.0)

  return jax.tree.map(merge, deltas, is_leaf=deltas_lib.is_factors)


def _mean(x: types.Array) -> types.Array:
  """Averages ``[T, ...]``."""
  return jnp.mean(tree.wide(x), 0).astype(x.dtype)


def _mixing(
  a: types.Array,
  b: types.Array,
  scale: types.Array,
  *,
  count: int,
  invariant: bool,
  norms: bool,
  outputs: bool,
) -> types.Array:
  """Returns the coefficients of raw units in those of the result.

  Returns:
    ``[2, G, k, N]``, for A and for B.
  """
  models = len(a)
  wide = tree.wide_dtype(a, b)
  parts = [_units(x, half).astype(wide) for half, x in enumerate((a, b))]
  n = parts[0].shape[1]
  scale = jnp.repeat(scale.astype(wide), n // models)
  halves = _halves(parts, scale, invariant)
  transpose = jnp.matrix_transpose
  grams = [tree.matmul(x, transpose(x)) for x in parts]
  gram = sum(h[:, :, None] * g * h[:, None] for h, g in zip(halves, grams))
  found = jax.vmap(
    lambda gram: _clusters.cluster(gram, count, signed=invariant)
  )(jax.lax.stop_gradient(gram))
  members = jnp.sum(jnp.abs(found) > 0, -1).astype(wide)
  centres = tree.safe_divide(found, members[..., None])
  if norms:
    length = jnp.sqrt(jnp.diagonal(gram, axis1=-2, axis2=-1))
    mean = jnp.sum(jnp.abs(centres) * length[:, None], -1)
    square = jnp.sum(tree.matmul(centres, gram) * centres, -1)
    # Of members that cancel, rounding errors remain.
    real = square > n * jnp.finfo(wide).eps * jnp.square(mean)
    norm = jnp.sqrt(jnp.where(real, square, 1))
    centres = centres * (jnp.where(real, mean, 0) / norm)[..., None]
  mixing = centres[None] * halves[:, :, None]
  if outputs:
    used = jnp.sum(members > 0, -1).astype(wide)
    units = jnp.sum(members, -1) / models
    factor = jnp.sqrt(tree.safe_divide(units, used))
    factor = jnp.stack([jnp.ones_like(factor), factor])
    mixing = mixing * factor[..., None, None]
  return mixing


def _halves(
  parts: list[types.Array], scale: types.Array, invariant: bool
) -> types.Array:
  """Returns the factors of the two halves of each unit, ``[2, G, N]``."""
  root = jnp.sqrt(jnp.abs(scale))
  factors = jnp.stack([root, jnp.sign(scale) * root])[:, None]
  sizes = jnp.stack([jnp.sqrt(jnp.sum(jnp.square(x), -1)) for x in parts])
  if not invariant:
    return jnp.broadcast_to(factors, sizes.shape)
  # c |a| = |b| / c for c = (|b| / |a|)^(1/2); a unit with a zero half is zero.
  turned = sizes[::-1]
  return factors * jnp.sqrt(tree.safe_divide(turned, sizes))


def _units(x: types.Array, half: int) -> types.Array:
  """Lays A or B of T LoRAs out as ``[G, N, in]`` or ``[G, N, out]``."""
  x = jnp.matrix_transpose(x) if half else x
  x = x if x.ndim == 4 else x[:, None]
  x = jnp.moveaxis(x, 0, 1)
  return x.reshape(len(x), -1, x.shape[-1])


def _mix(x: types.Array, mixing: types.Array, *, half: int) -> types.Array:
  """Returns A ``[..., k, in]`` or B ``[..., out, k]`` of the result."""
  units = _units(x, half).astype(mixing.dtype)
  mixed = tree.matmul(mixing[half], units)
  mixed = jnp.matrix_transpose(mixed) if half else mixed
  return (mixed if x.ndim == 4 else mixed[0]).astype(x.dtype)
