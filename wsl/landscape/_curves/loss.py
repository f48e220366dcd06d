"""The loss along a curve: to train its bends, and to measure it."""

from collections.abc import Callable
from typing import Any

import jax

from wsl import tree, types
from wsl.landscape import _checks, _interpolate, _path
from wsl.landscape._curves import points as points_lib


def curve_loss(
  loss_fn: Callable[..., types.Array],
  a: types.Params,
  b: types.Params,
  *,
  on: Callable[[points_lib.Curve, types.Scalar], types.Params] = (
    points_lib.bezier
  ),
) -> jax.tree_util.Partial:
  r"""Returns the loss of the bends of a curve, for ``train.advance``.

  .. math:: \ell(\theta_1, \dots, \theta_K) = \mathbb E_{t \sim U(0, 1)}
    \, L(\theta(t))

  by one t for each step, drawn from its key. The ends stay fixed: they are
  bound arrays, so that one compiled program trains curves between all pairs of
  models, also side by side by ``vmap``.

  Args:
    loss_fn: maps (params, batch, key) to a scalar, as for ``train.advance``.
    a: the model at t = 0, leaves ``[...]``.
    b: the model at t = 1, of the same names, shapes and dtypes.
    on: the points of the curve: ``bezier`` or ``polygon``.

  Returns:
    A function of (bends, batch, key) to a scalar.

  Raises:
    ValueError: naming the leaf in which the models differ.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> from wsl import landscape, train
    >>> ring = lambda p, batch, key: (jnp.sum(p['x'] ** 2) - 1) ** 2
    >>> a, b = ({'x': jnp.asarray([x, 0.1])} for x in (-1.0, 1.0))
    >>> start, optimizer = landscape.curve(a, b, bends=3), optax.adam(0.1)
    >>> state, _ = train.advance(
    ...   curve_loss(ring, a, b), train.start(start.bends, optimizer=optimizer),
    ...   jnp.zeros(1), optimizer=optimizer, steps=100, batch_size=1,
    ...   key=jax.random.key(0))
    >>> found = start._replace(bends=state.params)
    >>> height = lambda curve: landscape.curve_path(
    ...   lambda p: ring(p, None, None), curve).values.max().item()
    >>> height(start) > 0.9, height(found) < 0.2
    (True, True)

  Reference:
    Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of
    DNNs", 2018, arXiv:1802.10026.
  """
  b = _interpolate.check_alike(a, b, name='curve_loss')
  tree.check_weights('curve_loss', {'a': a, 'b': b})
  tree.check_not_narrowed('curve_loss', a)
  a, b = tree.read((a, b))
  return jax.tree_util.Partial(
    _loss, tree.partial(loss_fn), tree.partial(on), a, b
  )


def _loss(
  loss_fn: Callable[..., types.Array],
  on: Callable[[points_lib.Curve, types.Scalar], types.Params],
  a: types.Params,
  b: types.Params,
  bends: types.Tree,
  batch: Any,
  key: types.PRNGKey,
) -> types.Array:
  """Returns the loss of a batch at a random point of the curve."""
  of_t, of_loss = jax.random.split(key)
  t = jax.random.uniform(of_t, (), tree.wide_dtype(*jax.tree.leaves(bends)))
  return loss_fn(on(points_lib.Curve(a, bends, b), t), batch, of_loss)


def curve_path(
  metric_fn: Callable[[types.Params], types.Tree],
  curve: points_lib.Curve,
  *,
  points: int = 25,
  on: Callable[[points_lib.Curve, types.Scalar], types.Params] = (
    points_lib.bezier
  ),
  edit: Callable[[types.Params, types.Array], types.Params] | None = None,
  traced: bool = True,
) -> _path.Path:
  r"""Evaluates a metric along a curve between two models.

  .. math:: m(\theta(t)), \quad t = 0, \tfrac{1}{P-1}, \dots, 1

  Barriers are those of ``heights``, by both definitions, and ``connectivity``.

  Args:
    metric_fn: as in ``path``.
    curve: the ends and the bends.
    points: number of points P, both ends included, ``>= 2``.
    on: the points of the curve: ``bezier`` or ``polygon``.
    edit: a function of (params, t), applied to the model at t before the metric
      is evaluated, such as ``align.reset_batch_stats``: running moments of a
      combination of models are not those of its activations.
    traced: as in ``path``.

  Returns:
    A ``Path``; values are float32 or wider.

  Raises:
    ValueError: naming the leaf in which the ends differ, or if ``points`` is
      below 2.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'x': jnp.asarray(0.0)}, {'x': jnp.asarray(4.0)}
    >>> bent = points_lib.Curve(a, {'x': jnp.asarray([4.0])}, b)
    >>> curve_path(lambda p: p['x'], bent, points=3).values.tolist()
    [0.0, 3.0, 4.0]
  """
  _checks.count('curve_path', 'points', points, least=2)
  _interpolate.check_alike(curve.a, curve.b, name='curve_path')
  if traced:
    tree.check_not_narrowed('curve_path', curve.a)
  a, b = tree.read((curve.a, curve.b))
  place = lambda t: on(points_lib.Curve(a, curve.bends, b), t)
  return _path.evaluate_on(metric_fn, place, points, edit, traced)
