"""Mode connectivity: a number with a sign for the loss along a curve."""

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.landscape import _path


def connectivity(values: types.Tree) -> types.Tree:
  r"""Returns the mode connectivity of values along a curve.

  .. math:: \text{mc} = \tfrac12 (v(0) + v(1)) - v(t^*), \qquad
    t^* = \arg\max_t \bigl| v(t) - \tfrac12 (v(0) + v(1)) \bigr|

  It is negative if the curve has a barrier, positive if its inside is lower
  than the ends (they are under-trained), and about zero if the ends are
  connected. ``heights`` measures barriers alone.

  Args:
    values: a pytree, leaves ``[points, ...]``, from one end to the other, such
      as ``path(...).values``.

  Returns:
    A pytree like ``values``, leaves ``[...]``, float32 or wider.

  Raises:
    ValueError: naming the leaf that has fewer than 2 points.

  Example:
    >>> import jax.numpy as jnp
    >>> connectivity(jnp.asarray([0.0, 3.0, 2.0])).item()
    -2.0
    >>> connectivity(jnp.asarray([1.0, 0.25, 1.5, 1.0])).item()
    0.75

  Reference:
    Yang et al., "Taxonomizing Local versus Global Structure in Neural Network
    Loss Landscapes", 2021, arXiv:2107.11228.
  """
  _path.check_points('connectivity', values)
  return jax.tree.map(_connectivity, values)


def _connectivity(x: types.Array) -> types.Array:
  """Returns the largest deviation from the mean of the ends, negated."""
  (x,) = tree.widen(x)
  below = (x[:1] + x[-1:]) / 2 - x
  place = jnp.argmax(jnp.abs(below), axis=0, keepdims=True)
  return jnp.take_along_axis(below, place, axis=0)[0]
