"""Metrics along the line between two models, and their barriers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.landscape import _checks, _interpolate


class Path(NamedTuple):
  """Metrics along the line between two models.

  Attributes:
    t: ``[points]``, from 0 (at a) to 1 (at b), both ends included.
    values: the metrics, a pytree with leaves ``[points, ...]``.
  """

  t: types.Array
  values: types.Tree


class Heights(NamedTuple):
  """Barriers of the values on a path.

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
  r"""Evaluates a metric along the line between two models.

  .. math:: m(\theta(t)), \quad \theta(t) = (1 - t) \theta_a + t \theta_b

  The points are evaluated sequentially (``jax.lax.map``): a metric over a data
  set saturates the device by itself, and all points in parallel would need
  memory for ``points`` models and their activations. For many pairs of models,
  jit a function of (a, b) that calls this: it compiles once.

  Args:
    metric_fn: a function of the parameters; it returns a number, an array or
      any pytree of them (loss and error, on train and test).
    a: the model at t = 0.
    b: the model at t = 1, of the same names, shapes and dtypes.
    points: number of points on the line, both ends included, ``>= 2``; an
      odd number includes the midpoint.
    edit: a function of (params, t), applied to the model at t before the metric
      is evaluated, such as a correction of its statistics.
    traced: whether both functions can be traced. If not, the points are
      evaluated in a Python loop; ``metric_fn`` should then be jitted.

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
  check_line(a, b, points, name='path')
  if traced:
    tree.check_not_narrowed('path', a)
  return evaluate(metric_fn, a, b, points, edit, traced)


def heights(values: types.Tree, *, t: types.Array | None = None) -> types.Tree:
  r"""Returns the barriers of values on a path, by both definitions in use.

  .. math::
    B_\text{mean} = \max_t v(t) - \tfrac12 (v(0) + v(1))
    \qquad
    B_\text{chord} = \max_t \bigl[ v(t) - (1 - t) v(0) - t v(1) \bigr]

  They agree if the two ends are equal. Neither is negative, and the first is at
  least half the difference of the ends: it is positive even if the values
  decrease monotonically from one end to the other.

  Args:
    values: a pytree, leaves ``[points, ...]``; lower is better.
    t: ``[points]``, the positions of the points from 0 to 1; equidistant if
      None.

  Returns:
    ``Heights`` of pytrees like ``values``, leaves ``[...]``, in float32 or
    wider.

  Raises:
    ValueError: naming the leaf that has fewer than 2 points, or another number
      of points than ``t``; or if ``t`` does not rise from 0 to 1.

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
  if t is not None:
    shape = np.shape(t)
    if len(shape) != 1:
      raise ValueError(
        f'heights: t has shape {shape}, expected [points], from 0 to 1'
      )
    t = t if tree.is_traced(t) else jnp.asarray(np.asarray(t))
  check_points('heights', values, t)
  _check_rises(t)
  values = jax.tree.map(_wide, values)
  return Heights(
    above_mean=jax.tree.map(_above_mean, values),
    above_chord=jax.tree.map(lambda x: _above_chord(x, t), values),
  )


def check_line(
  a: types.Params, b: types.Params, points: int, *, name: str
) -> None:
  """Checks two models and a number of points for the function ``name``."""
  _checks.count(name, 'points', points, least=2)
  _interpolate.check_alike(a, b, name=name)


def _check_rises(t: types.Array | None) -> None:
  """Checks that known positions rise from 0 to 1."""
  if t is None or isinstance(t, jax.core.Tracer):
    return
  at = np.asarray(t, np.float64)
  if not (np.allclose(at[[0, -1]], [0, 1]) and np.all(np.diff(at) >= 0)):
    raise ValueError(
      f'heights: t is {at[0]:g} .. {at[-1]:g}, expected positions that rise '
      'from 0 to 1'
    )


def check_points(
  function: str, values: types.Tree, t: types.Array | None = None
) -> None:
  """Checks the number of points of values on a path."""
  for name, leaf in tree.named(values).items():
    points = jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0
    if points < 2 or (t is not None and jnp.shape(t) != (points,)):
      wanted = '2 or more' if t is None else f'{jnp.shape(t)[0]}, as t has'
      place = f" '{name}'" if name else ''
      raise ValueError(
        f'{function}: the values{place} have {points} points, expected {wanted}'
      )


def evaluate(
  metric_fn: Callable[[types.Params], types.Tree],
  a: types.Params,
  b: types.Params,
  points: int,
  edit: Callable[[types.Params, types.Array], types.Params] | None = None,
  traced: bool = True,
) -> Path:
  """Evaluates a metric as ``path`` does, without its checks."""
  a, b = tree.read((a, b))
  place = lambda t: _interpolate.interpolate(a, b, t)
  return evaluate_on(metric_fn, place, points, edit, traced)


def evaluate_on(
  metric_fn: Callable[[types.Params], types.Tree],
  place: Callable[[types.Array], types.Params],
  points: int,
  edit: Callable[[types.Params, types.Array], types.Params] | None = None,
  traced: bool = True,
) -> Path:
  """Evaluates a metric at the models ``place(t)``, t from 0 to 1."""
  t = jnp.linspace(0.0, 1.0, points)

  def metric_at(t: types.Array) -> types.Tree:
    params = place(t)
    if edit is not None:
      params = edit(params, t)
    return jax.tree.map(_as_float, metric_fn(params))

  if traced:
    return Path(t=t, values=jax.lax.map(metric_at, t))
  return Path(t=t, values=tree.stack([metric_at(point) for point in t]))


def _wide(x: types.Array) -> types.Array:
  """Casts values to float32 or wider; those of NumPy stay on the host."""
  integer = not jnp.issubdtype(x.dtype, jnp.inexact)
  return x.astype(np.float32) if integer else tree.wide(x)


def _above_mean(x: types.Array) -> types.Array:
  """Returns the maximum minus the mean of the two ends."""
  return x.max(axis=0) - (x[0] + x[-1]) / 2


def _above_chord(x: types.Array, t: types.Array | None) -> types.Array:
  """Returns the maximum of the values minus the chord between the ends."""
  # Over the points, ends included, so >= 0: a lower bound of the maximum over
  # the line.
  xp: Any = np if isinstance(x, np.ndarray) else jnp
  t = xp.linspace(0.0, 1.0, x.shape[0]) if t is None else t
  at = xp.asarray(t, x.dtype).reshape((-1,) + (1,) * (x.ndim - 1))
  return (x - ((1 - at) * x[:1] + at * x[-1:])).max(axis=0)


def _as_float(x: Any) -> types.Array:
  """Casts a metric, also a number or an integer, to float32 or wider."""
  return tree.widen(jnp.asarray(x))[0]
