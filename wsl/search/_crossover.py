"""Crossover of two models on a sphere."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas, tree, types


def crossover(
  a: types.Params,
  b: types.Params,
  *,
  split: types.ArrayLike,
  weight: types.ArrayLike,
) -> types.Params:
  r"""Interpolates two models on a sphere, with swapped weights after a split.

  .. math:: \theta_p = \frac{\sin((1 - v_p)\,\omega)}{\sin \omega}\, a_p +
    \frac{\sin(v_p\,\omega)}{\sin \omega}\, b_p, \qquad
    v_p = w \text{ if } p < k \text{ else } 1 - w

  with the angle :math:`\omega` between the models as two vectors, and a line
  where its sine is at most 1e-6. p counts the entries leaf by leaf in the order
  of their names, numbers in names by value.

  Args:
    a: a model whose float leaves have d entries, all real.
    b: a model of the same structure and shapes.
    split: k, from 0 to d, or more, which is as d; may be traced.
    weight: w, from 0 to 1; may be traced. 0 puts the first part of ``a`` before
      the last part of ``b``.

  Returns:
    A model, leaves in the dtypes of ``a``; integer leaves are copied.

  Raises:
    ValueError: if the models differ in structure, shape, dtype or integers, a
      leaf is complex, or ``split`` or ``weight`` is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'w': jnp.zeros(4)}, {'w': jnp.ones(4)}
    >>> crossover(a, b, split=1, weight=0.0)['w'].tolist()
    [0.0, 1.0, 1.0, 1.0]

  Reference:
    Abrantes, Lange and Tang, "Competition and Attraction Improve Model Fusion",
    2025, arXiv:2508.16204, section 3.
  """
  a, b = deltas.check('crossover', {'a': a, 'b': b})
  tree.check_real('crossover', a, 'cross its real and imaginary parts')
  tree.check_not_narrowed('crossover', a)
  tree.check_scalars('crossover', split=split, weight=weight)
  starts = _starts(a)
  limits: dict[str, tuple[Any, float]] = {
    'split': (split, math.inf),
    'weight': (weight, 1),
  }
  for name, (value, most) in limits.items():
    if not tree.is_traced(value) and not 0 <= value <= most:
      raise ValueError(f'crossover: {name}={value}, expected 0 .. {most}')
  floats = lambda x: tree.wide(jnp.asarray(x)) if tree.is_float(x) else None
  x, y = (jax.tree.map(floats, z) for z in (a, b))
  inner = lambda x, y: sum(jax.tree.leaves(jax.tree.map(_inner, x, y)))
  # Norms, as the product of their squares underflows for small differences.
  cosine = inner(x, y) / (jnp.sqrt(inner(x, x)) * jnp.sqrt(inner(y, y)))
  omega = jnp.arccos(jnp.clip(jnp.where(jnp.isnan(cosine), 1, cosine), -1, 1))

  def mix(name: str, like: Any, x: Any, y: Any) -> types.Array:
    if x is None:
      return like
    at = starts[name] + jnp.arange(x.size).reshape(x.shape)
    v = jnp.where(at < split, weight, 1 - jnp.asarray(weight)).astype(x.dtype)
    curved = jnp.sin(omega) > 1e-6
    sine = jnp.where(curved, jnp.sin(omega), 1)
    of_a = jnp.where(curved, jnp.sin((1 - v) * omega) / sine, 1 - v)
    of_b = jnp.where(curved, jnp.sin(v * omega) / sine, v)
    return (of_a * x + of_b * y).astype(like.dtype)

  return tree.map_named(mix, a, x, y)


def _starts(params: types.Params) -> dict[str, int]:
  """Returns the position of the first entry of each leaf."""
  named = {k: x for k, x in tree.named(params).items() if tree.is_float(x)}
  starts, total = {}, 0
  for name in tree.in_order(named):
    starts[name] = total
    total += math.prod(named[name].shape)
  if total >= 2**31:
    raise ValueError(f'crossover: {total} entries do not fit in int32')
  return starts


def _inner(x: types.Array, y: types.Array) -> types.Array:
  return jnp.sum(x * y)
