"""The loss barrier on the straight line between two models."""

from collections.abc import Callable
from typing import NamedTuple

from wsl import tree, types
from wsl.landscape import _path


class Barrier(NamedTuple):
  """The loss along the line between two models, and its barrier.

  Attributes:
    t: ``[points]``, from 0 (at a) to 1 (at b), both ends included.
    losses: ``[points, ...]``, the loss at each t.
    above_mean: ``[...]``, the largest loss minus the mean of the two ends.
    above_chord: ``[...]``, the largest rise over the chord that joins the two
      ends.
  """

  t: types.Array
  losses: types.Tree
  above_mean: types.Tree
  above_chord: types.Tree


def barrier(
  loss_fn: Callable[[types.Params], types.Tree],
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

  with :math:`\theta(t) = (1 - t) \theta_a + t \theta_b`: ``path``, then
  ``heights``. They agree if the two ends have equal loss. As both ends are
  among the points, neither is negative, and the first is at least half the
  difference of the ends: it is positive even if the loss decreases
  monotonically from one end to the other.

  Args:
    loss_fn: a traceable function of the parameters; it returns a number, an
      array ``[...]`` of several measures (loss and error, train and test), or
      a pytree of them.
    a: the model at t = 0.
    b: the model at t = 1, of the same names, shapes and dtypes.
    points: number of points on the line, both ends included, ``>= 2``; an
      odd number includes the midpoint.

  Returns:
    A ``Barrier``, in float32 or wider; its fields except ``t`` are pytrees like
    the result of ``loss_fn``.

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
  _path.check_line(a, b, points, name='barrier')
  tree.check_not_narrowed('barrier', a)
  found = _path.evaluate(loss_fn, a, b, points)
  rise = _path.heights(found.values, t=found.t)
  return Barrier(found.t, found.values, rise.above_mean, rise.above_chord)
