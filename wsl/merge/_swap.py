"""Copies of one model, and of entries of a second one where it is near."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas, tree, types
from wsl.merge import _checks


def passthrough(
  model: types.Params, *, scale: types.Numbers = 1.0
) -> types.Params:
  r"""Copies a model, or multiplies it by a scale.

  .. math:: \theta = s\, \theta_1

  Args:
    model: leaves ``[...]`` or in factors.
    scale: s: a number that may be traced; or one for each leaf, as in
      ``tree.scalars``, such as 0 for the output projections of layers that are
      to do nothing.

  Returns:
    A model, leaves ``[...]`` in the dtype of ``model``; integer leaves are
    copied.

  Raises:
    ValueError: if ``scale`` is an array, or does not cover the leaves.

  Example:
    >>> import jax.numpy as jnp
    >>> model = {'a': jnp.ones(2), 'o_proj': jnp.ones(2)}
    >>> passthrough(model, scale={'o_proj': 0.0, '.*': 1.0})['o_proj'].tolist()
    [0.0, 0.0]

  Reference:
    mergekit 0.1.5, method ``passthrough``.

  Equals mergekit 0.1.5.
  """
  arrays = deltas.placeholders(model)
  scales = tree.scalars('passthrough', 'scale', scale, arrays)

  def multiply(x: Any, s: Any) -> Any:
    if deltas.is_factors(x):
      return deltas.times(x, s)
    return tree.apply_kernel(_multiplied, x, scale=s) if tree.is_float(x) else x

  return jax.tree.map(multiply, model, scales, is_leaf=deltas.is_factors)


@deltas.on_models
def nearswap(
  a: types.Params, b: types.Params, *, t: types.Numbers
) -> types.Params:
  r"""Moves each entry towards a second model, more where both are near.

  .. math:: \theta_p = (1 - w_p) a_p + w_p b_p, \qquad
    w_p = \min\Big(1, \frac{t}{\max(|a_p - b_p|, 10^{-6})}\Big)

  So an entry moves by at most t.

  Args:
    a: the model that is changed, leaves ``[...]``.
    b: the other model, of the same structure and shapes.
    t: the largest change of an entry, a number ``>= 0`` that may be traced; or
      one for each leaf, as in ``slerp``.

  Returns:
    A model, leaves ``[...]`` in the dtype of ``a``; integer leaves are copied.

  Raises:
    ValueError: if the models differ in structure, shape, dtype or integers, or
      ``t`` is an array or negative, naming the leaf or the argument.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'w': jnp.zeros(2)}, {'w': jnp.asarray([0.5, 4.0])}
    >>> nearswap(a, b, t=1.0)['w'].tolist()
    [0.5, 1.0]

  Reference:
    mergekit 0.1.5, method ``nearswap``.

  Equals mergekit 0.1.5.
  """
  a, b = deltas.check('nearswap', {'a': a, 'b': b})
  parts = tree.scalars('nearswap', 't', t, a)
  for part in jax.tree.leaves(parts):
    _checks.at_least_zero('nearswap', 't', part)

  def swap(x: Any, y: Any, t: Any) -> Any:
    return tree.apply_kernel(_nearswap, x, y, t=t) if tree.is_float(x) else x

  return jax.tree.map(swap, a, b, parts)


@deltas.on_models
def arcee_fusion(a: types.Params, b: types.Params) -> types.Params:
  r"""Takes the entries of a second model whose importance is an outlier.

  .. math:: I_{p} = |b_p - a_p| \cdot
    \operatorname{KL}\big(\sigma(b_{r(p)}) \,\|\, \sigma(a_{r(p)})\big),
    \qquad \theta_p = b_p \text{ if } I_p \ge Q_2 + 1.5\, (Q_3 - Q_1)
    \text{ else } a_p

  with the softmax :math:`\sigma` of the row r(p) of the entry along the last
  axis (plus 1e-8) and the quartiles Q of I in the leaf.

  Args:
    a: the model that is changed, leaves ``[...]``.
    b: the other model, of the same structure and shapes.

  Returns:
    A model, leaves ``[...]`` in the dtype of ``a``; integer leaves are copied.

  Raises:
    ValueError: if the models differ in structure, shape, dtype or integers, or
      a leaf is complex, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> a = {'w': jnp.zeros((8, 2))}
    >>> b = {'w': jnp.zeros((8, 2)).at[3, 1].set(2.0)}
    >>> arcee_fusion(a, b)['w'][3].tolist()
    [0.0, 2.0]

  Reference:
    mergekit 0.1.5, method ``arcee_fusion``.

  Differs from mergekit in leaves of more than a million entries: the quartiles
  are those of all entries here, of a million random ones there.
  """
  a, b = deltas.check('arcee_fusion', {'a': a, 'b': b})
  tree.check_real('arcee_fusion', a, 'a softmax needs real numbers')

  leaves, treedef = jax.tree.flatten(a)
  pairs = [
    (x, y) if tree.is_float(x) else None
    for x, y in zip(leaves, jax.tree.leaves(b))
  ]
  found = _importances(pairs, list(tree.named(a)))
  fused = [
    tree.apply_kernel(_fuse, *pair, *given) if pair else x
    for x, pair, given in zip(leaves, pairs, found)
  ]
  return jax.tree.unflatten(treedef, fused)


def _importances(
  pairs: Sequence[Any], names: Sequence[str]
) -> list[tuple[Any, ...]]:
  """Returns the importances of each pair in a trace, and their quartiles.

  The quartiles of all leaves are found by one search. Other leaves find them on
  their own, when they are merged.
  """
  searched = [
    i
    for i, pair in enumerate(pairs)
    if pair and tree.is_traced(pair) and pair[0].size
  ]
  each = [
    tree.read(tree.apply_kernel(_importance, *pairs[i])) for i in searched
  ]
  names = [names[i] for i in searched]
  found: list[tuple[Any, ...]] = [()] * len(pairs)
  for i, importance, sides in zip(searched, each, _quartiles(each, names)):
    found[i] = (importance, sides)
  return found


def _multiplied(x: types.Array, *, scale: types.Scalar) -> types.Array:
  """Multiplies in float32 or wider."""
  wide = tree.wide(x)
  return (wide * jnp.asarray(scale).astype(wide.dtype)).astype(x.dtype)


def _nearswap(a: types.Array, b: types.Array, *, t: Any) -> types.Array:
  """Moves the entries of one leaf by at most t."""
  x, y = tree.wide(a), tree.wide(b)
  distance = jnp.maximum(jnp.abs(x - y), 1e-6)
  share = jnp.clip(jnp.asarray(t).astype(distance.dtype) / distance, 0, 1)
  share = share.astype(x.dtype)
  return (share * y + (1 - share) * x).astype(a.dtype)


def _fuse(a: types.Array, b: types.Array, *found: types.Array) -> types.Array:
  """Takes the important entries of the second model; one leaf.

  Given the importances and their quartiles by ``_quartiles``, or finding them.
  """
  if not a.size:
    return a
  if not found:
    importance = _importance(a, b)
    found = (importance, _quartiles([importance])[0])
  importance, (negative, positive) = found[0], found[1].swapaxes(0, 1)
  low, middle, high = jnp.where(negative > 0, -negative, positive)
  x, y = jnp.atleast_1d(tree.wide(a)), jnp.atleast_1d(tree.wide(b))
  taken = importance >= middle + 1.5 * (high - low)
  return jnp.where(taken, y, x).reshape(a.shape).astype(a.dtype)


def _importance(a: types.Array, b: types.Array) -> types.Array:
  """Returns the importance of each entry of one leaf."""
  x, y = jnp.atleast_1d(tree.wide(a)), jnp.atleast_1d(tree.wide(b))
  p, q = (jax.nn.softmax(z, axis=-1) + 1e-8 for z in (y, x))
  divergence = jnp.sum(p * jnp.log(p / q), axis=-1, keepdims=True)
  return jnp.abs(y - x) * divergence


def _quartiles(
  leaves: Sequence[types.Array], names: Sequence[str] | None = None
) -> list[types.Array]:
  """Returns the quartiles of each of several leaves, ``[3, 2]``.

  They are ``sort(x)[at]`` of all entries, found by counting, without a sort. Of
  n negative entries, which rounding leaves, the i-th smallest of all is the
  (i + 1)-th largest magnitude of them for i < n: the first column, which is 0
  for i >= n. Otherwise it is the second column, the (size - i)-th largest of
  the others, among zeros in place of the n.
  """
  sides, ranks = [], []
  for x in leaves:
    at = [int(f * (x.size - 1)) for f in (0.25, 0.5, 0.75)]
    # Both sides are searched as two models of one leaf.
    sides.append(jnp.stack([jnp.where(x < 0, x, 0), jnp.where(x < 0, 0, x)]))
    ranks.append(np.asarray([[i + 1, x.size - i] for i in at]))
  return tree.kth_in_leaves(sides, ranks, names=names)
