"""The loss barrier on the straight line between two models."""

from collections.abc import Callable
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.landscape import _interpolate


class Barrier(NamedTuple):
  """The loss along the line between two models, and its height.

  Attributes:
    t: ``[points]``, from 0 (at a) to 1 (at b), both ends included.
    losses: ``[points, ...]``, the loss at each t.
    above_mean: ``[...]``, the largest loss minus the mean of the two ends.
    above_chord: ``[...]``, the largest rise over the chord that joins the two
      ends.
  """

  t: types.Array
  losses: types.Array
  above_mean: types.Array
  above_chord: types.Array


def barrier(
  loss_fn: Callable[[types.Params], types.Array],
  a: types.Params,
  b: types.Params,
  *,
  points: int = 25,
) -> Barrier:
  r"""Measures the barrier between two models, by both definitions in use.

  .. math::
    B_\text{mean} = \max_t L(\theta(t)) - \tfrac12 (L(\theta_a) + L(\theta_b))
    \qquad
    B_\text{chord} = \max_t \bigl[ L(\theta(t))
      - (1 - t) L(\theta_a) - t L(\theta_b) \bigr]

  with :math:`\theta(t) = (1 - t) \theta_a + t \theta_b`. They agree where the
  two ends have equal loss. As both ends are among the points, neither is
  negative, and the first is at least half the difference of the ends: it is
  positive even where the loss only falls from one end to the other.

  The points are evaluated one after another (``jax.lax.map``): a ``loss_fn``
  that runs over a data set fills the machine by itself, and side by side the
  points would need ``points`` models and their activations in memory.

  Args:
    loss_fn: a traceable function of the parameters; it returns a number, or an
      array ``[...]`` of several measures (loss and error, train and test).
    a: the model at t = 0.
    b: the model at t = 1, alike in names, shapes and dtypes.
    points: how many points on the line, both ends included, ``>= 2``; with
      an odd number the middle is one of them.

  Returns:
    A ``Barrier``, in float32 or wider.

  Raises:
    ValueError: naming the leaf in which the models differ, or if ``points`` is
      below 2.

  Example:
    >>> import jax.numpy as jnp
    >>> bump = lambda p: 1.0 - p['x'] ** 2
    >>> a, b = {'x': jnp.asarray(-1.0)}, {'x': jnp.asarray(1.0)}
    >>> barrier(bump, a, b, points=5).above_chord.item()
    1.0

  Reference: Frankle et al., "Linear Mode Connectivity and the Lottery Ticket
  Hypothesis", 2020, arXiv:1912.05671, and Ainsworth, Hayase and Srinivasa,
  "Git Re-Basin: Merging Models modulo Permutation Symmetries", 2022,
  arXiv:2209.04836 (above the mean); Entezari et al., "The Role of Permutation
  Invariance in Linear Mode Connectivity of Neural Networks", 2021,
  arXiv:2110.06296 (above the chord).
  """
  if operator.index(points) < 2:
    raise ValueError(
      f'barrier: points={points}, expected at least 2: both ends are included'
    )
  _interpolate.check_alike(a, b, name='barrier')
  a, b = tree.read((a, b))
  t = jnp.linspace(0.0, 1.0, points)
  losses = jax.lax.map(
    lambda at: _wide(loss_fn(_interpolate.interpolate(a, b, at))), t
  )
  at = jnp.asarray(t, losses.dtype).reshape((-1,) + (1,) * (losses.ndim - 1))
  chord = (1 - at) * losses[:1] + at * losses[-1:]
  return Barrier(
    t=t,
    losses=losses,
    above_mean=losses.max(axis=0) - (losses[0] + losses[-1]) / 2,
    above_chord=(losses - chord).max(axis=0),
  )


def _wide(loss: types.Array) -> types.Array:
  loss = jnp.asarray(loss)
  if jnp.issubdtype(loss.dtype, jnp.floating):
    return tree.wide(loss)
  return loss.astype(jnp.float32)
