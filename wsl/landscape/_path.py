"""What is measured along the line between two models, and how high it rises."""

from collections.abc import Callable
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.landscape import _interpolate


class Path(NamedTuple):
  """Measures along the line between two models.

  Attributes:
    t: ``[points]``, from 0 (at a) to 1 (at b), both ends included.
    values: what was measured, a pytree with leaves ``[points, ...]``.
  """

  t: types.Array
  values: types.Tree


class Heights(NamedTuple):
  """How far values on a path rise above its ends.

  Attributes:
    above_mean: ``[...]``, the largest value minus the mean of the two ends.
    above_chord: ``[...]``, the largest rise over the chord that joins the two
      ends.
  """

  above_mean: types.Tree
  above_chord: types.Tree


def path(
  metric_fn: Callable[[types.Params], types.Tree],
  a: types.Params,
  b: types.Params,
  *,
  points: int = 25,
  edit: Callable[[types.Params, types.Array], types.Params] | None = None,
  traced: bool = True,
) -> Path:
  r"""Measures models along the line from one to another.

  .. math:: m(\theta(t)), \quad \theta(t) = (1 - t) \theta_a + t \theta_b

  The points are evaluated one after another (``jax.lax.map``): a metric that
  runs over a data set fills the machine by itself, and side by side the points
  would need ``points`` models and their activations in memory. For many pairs
  of models, jit a function of (a, b) that calls this: it compiles once.

  Args:
    metric_fn: a function of the parameters; it returns a number, an array or
      any pytree of them (loss and error, on train and test).
    a: the model at t = 0.
    b: the model at t = 1, alike in names, shapes and dtypes.
    points: how many points on the line, both ends included, ``>= 2``; with
      an odd number the middle is one of them.
    edit: what is done to the model at t before it is measured, a function of
      (params, t), such as a correction of its statistics.
    traced: whether both functions can be traced; if not, the points are visited
      by Python, and ``metric_fn`` had better be jitted.

  Returns:
    A ``Path``; values are float32 or wider.

  Raises:
    ValueError: naming the leaf in which the models differ, or if ``points`` is
      below 2.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'x': jnp.asarray(0.0)}, {'x': jnp.asarray(2.0)}
    >>> found = path(lambda p: {'square': p['x'] ** 2}, a, b, points=3)
    >>> found.values['square'].tolist()
    [0.0, 1.0, 4.0]
  """
  check(a, b, points, name='path')
  return walk(metric_fn, a, b, points, edit, traced)


def heights(values: types.Tree, *, t: types.Array | None = None) -> types.Tree:
  r"""Measures how far values rise above the ends of their path.

  .. math::
    B_\text{mean} = \max_t v(t) - \tfrac12 (v(0) + v(1))
    \qquad
    B_\text{chord} = \max_t \bigl[ v(t) - (1 - t) v(0) - t v(1) \bigr]

  They agree where the two ends are equal. Neither is negative, and the first
  is at least half the difference of the ends: it is positive even where the
  values only fall from one end to the other.

  Args:
    values: a pytree, leaves ``[points, ...]`` of what is better when low.
    t: ``[points]``, where they were taken, from 0 to 1; evenly spread if None.

  Returns:
    ``Heights`` of pytrees like ``values``, leaves ``[...]``.

  Raises:
    ValueError: naming the leaf that has fewer than 2 points, or not as many
      as ``t``.

  Example:
    >>> import jax.numpy as jnp
    >>> rise = heights({'loss': jnp.asarray([0.0, 3.0, 2.0])})
    >>> rise.above_mean['loss'].item(), rise.above_chord['loss'].item()
    (2.0, 2.0)

  Reference: Frankle et al., "Linear Mode Connectivity and the Lottery Ticket
  Hypothesis", 2020, arXiv:1912.05671, and Ainsworth, Hayase and Srinivasa,
  "Git Re-Basin: Merging Models modulo Permutation Symmetries", 2022,
  arXiv:2209.04836 (above the mean); Entezari et al., "The Role of Permutation
  Invariance in Linear Mode Connectivity of Neural Networks", 2021,
  arXiv:2110.06296 (above the chord).
  """
  for name, leaf in tree.named(values).items():
    points = jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0
    if points < 2 or (t is not None and jnp.shape(t) != (points,)):
      wanted = '2 or more' if t is None else f'{jnp.shape(t)[0]}, as t has'
      place = f" '{name}'" if name else ''
      raise ValueError(
        f'heights: the values{place} have {points} points, expected {wanted}'
      )
  return Heights(
    above_mean=jax.tree.map(_above_mean, values),
    above_chord=jax.tree.map(lambda x: _above_chord(x, t), values),
  )


def check(a: types.Params, b: types.Params, points: int, *, name: str) -> None:
  """Checks what every path needs; ``name`` is the function that asks."""
  if operator.index(points) < 2:
    raise ValueError(
      f'{name}: points={points}, expected at least 2: both ends are included'
    )
  _interpolate.check_alike(a, b, name=name)


def walk(
  metric_fn: Callable[[types.Params], types.Tree],
  a: types.Params,
  b: types.Params,
  points: int,
  edit: Callable[[types.Params, types.Array], types.Params] | None = None,
  traced: bool = True,
) -> Path:
  """As ``path``, without its checks."""
  a, b = tree.read((a, b))
  t = jnp.linspace(0.0, 1.0, points)

  def measure(at: types.Array) -> types.Tree:
    params = _interpolate.interpolate(a, b, at)
    if edit is not None:
      params = edit(params, at)
    return jax.tree.map(_wide, metric_fn(params))

  if traced:
    return Path(t=t, values=jax.lax.map(measure, t))
  return Path(t=t, values=tree.stack([measure(at) for at in t]))


def _above_mean(x: types.Array) -> types.Array:
  return x.max(axis=0) - (x[0] + x[-1]) / 2


def _above_chord(x: types.Array, t: types.Array | None) -> types.Array:
  t = jnp.linspace(0.0, 1.0, x.shape[0]) if t is None else t
  at = jnp.asarray(t, x.dtype).reshape((-1,) + (1,) * (x.ndim - 1))
  return (x - ((1 - at) * x[:1] + at * x[-1:])).max(axis=0)


def _wide(x: Any) -> types.Array:
  x = jnp.asarray(x)
  if jnp.issubdtype(x.dtype, jnp.floating):
    return tree.wide(x)
  return x.astype(jnp.float32)
