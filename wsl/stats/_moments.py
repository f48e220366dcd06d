"""Mean and variance of the outputs of every dense and convolutional weight."""

from collections.abc import Callable, Iterable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stats._linear_maps import reader, totals


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Part:
  """Mean and sum of squared deviations over some rows, in stored order."""

  mean: types.Array
  squares: types.Array
  rows: int = dataclasses.field(metadata={'static': True})
  axes: tuple[int, ...] = dataclasses.field(metadata={'static': True})
  bias: int | None = dataclasses.field(metadata={'static': True})


def moments(
  apply_fn: Callable[[types.Params, Any], Any],
  params: types.Params,
  batches: Iterable[Any],
) -> types.Tree:
  r"""Computes mean and variance of the outputs of every linear map in a model.

  .. math:: y = x W + b, \quad m = \frac{1}{n} \sum_{i=1}^{n} y_i, \quad
    v = \frac{1}{n} \sum_{i=1}^{n} (y_i - m)^2

  The maps are found by tracing, as in ``gram``. So is the bias: the leaf that
  is added, one entry per unit, to every product with the weight. The moments
  are those of the values before any normalisation or activation function.

  Args:
    apply_fn: a hashable function ``(params, inputs) -> anything``.
    params: any pytree, in memory or on demand.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``;
      inputs are an array ``[B, ...]`` or a pytree of them. Batches of one
      size compile once.

  Returns:
    A tree like ``params`` with ``Moments`` at each leaf that has a Gram
    matrix, its arrays of the leaf's shape without its input axes, in float32
    or wider, and ``None`` elsewhere. A variance below the square of the mean
    times the precision of the dtype is lost to rounding.

  Raises:
    ValueError: if there are no batches, or one array is given instead.

  Example:
    >>> import jax.numpy as jnp
    >>> dense = lambda p, x: jnp.tanh(x @ p['w'] + p['b'][None])
    >>> params = {'w': jnp.ones((2, 1)), 'b': jnp.ones(1)}
    >>> found = moments(dense, params, [jnp.asarray([[1.0, 2.0], [3.0, 4.0]])])
    >>> found['w'].mean.tolist(), found['w'].variance.tolist()
    ([6.0], [4.0])
    >>> found['w'].bias, found['b']
    ('b', None)

  Reference: the statistic of Jordan et al., "REPAIR: REnormalizing Permuted
  Activations for Interpolation Repair", 2022, arXiv:2211.08403.
  """
  params = tree.read(params)
  tree.check_not_narrowed('moments', params)
  tree.check_real('moments', params, 'only moments of real maps are defined')
  of_batch = functools.partial(_batch_moments, apply_fn, params)
  total = totals.over_batches(of_batch, batches, add=_add, name='moments')
  names = list(tree.named(params))
  return jax.tree.unflatten(
    jax.tree.structure(params), [_moments(part, names) for part in total]
  )


@functools.partial(jax.jit, static_argnums=0)
def _batch_moments(
  apply_fn: Callable[..., Any], params: types.Params, inputs: Any
) -> list[_Part | None]:
  """Computes mean and squared deviations of each map's outputs on a batch."""
  record = reader.record_products(apply_fn, params, inputs, _power_sums)
  leaves = jax.tree.leaves(params)
  parts: list[_Part | None] = []
  for i, leaf in enumerate(leaves):
    use = record.single(i)
    if use is None:
      parts.append(None)
      continue
    rows, sums = record.rows[use], record.sums[use]
    shape = [n for axis, n in enumerate(leaf.shape) if axis not in use.axes]
    mean, square = (sums[:, k].reshape(shape) / rows for k in range(2))
    squares = rows * jnp.maximum(square - jnp.square(mean), 0)
    bias = record.bias_of(i)
    if bias is not None:
      mean += leaves[bias].reshape(shape).astype(mean.dtype)
    parts.append(_Part(mean, squares, rows, use.axes, bias))
  return parts


def _power_sums(inputs: types.Array, outputs: types.Array) -> types.Array:
  """Returns the sums of y and of y^2 over the rows, ``[groups, 2, m]``."""
  del inputs
  return jnp.stack([outputs.sum(1), jnp.square(outputs).sum(1)], 1)


def _add(a: _Part, b: _Part) -> _Part:
  """Combines the moments of two sets of rows."""
  # Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance",
  # 1983: S = S_a + S_b + (m_b - m_a)^2 n_a n_b / (n_a + n_b). No difference of
  # large squares is taken between batches.
  rows = a.rows + b.rows
  step = b.mean - a.mean
  mean = a.mean + step * (b.rows / rows)
  between = jnp.square(step) * (a.rows * (b.rows / rows))
  squares = a.squares + b.squares + between
  return dataclasses.replace(a, mean=mean, squares=squares, rows=rows)


def _moments(part: _Part | None, names: list[str]) -> types.Moments | None:
  """Divides the squared deviations by n, and names the bias."""
  if part is None:
    return None
  count = jnp.asarray(part.rows, part.mean.dtype)
  bias = '' if part.bias is None else names[part.bias]
  variance = part.squares / count
  return types.Moments(part.mean, variance, count, part.axes, bias)
