"""MagMax: the entry of largest magnitude of all models."""

import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _stack


@deltas_lib.on_stacks
def magmax(deltas: types.Deltas) -> types.Delta:
  r"""Takes each entry from the model that changed it most.

  .. math:: \tau_p = \tau_{t^*,p}, \qquad
    t^* = \operatorname{argmax}_t |\tau_{t,p}|

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``. Of equal magnitudes
      the last model's is taken, so order the models as they were trained.

  Returns:
    The merged task vector, every leaf ``[...]``; the authors scale it in
    ``deltas.apply`` by a number chosen on validation data.

  Raises:
    ValueError: if a leaf is not a stack of floats.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, -4.0, 2.0], [-3.0, 2.0, -2.0]])}
    >>> magmax(deltas)['w'].tolist()
    [-3.0, -4.0, -2.0]

  Reference:
    Marczak et al., "MagMax: Leveraging Model Merging for Seamless Continual
    Learning", 2024, arXiv:2407.06322.

  Differs from the official code in nothing for task vectors of one base; there
  each task is trained from the weights of the task before it.
  """
  _stack.count('magmax', deltas)
  return tree.map(_magmax, deltas)


def _magmax(x: types.Array) -> types.Array:
  """Selects the largest magnitude over the models of one leaf."""
  return _stack.reduce_in_turn(_larger, x)


def _larger(x: types.Array, y: types.Array) -> types.Array:
  """Returns the entries of larger magnitude, those of ``y`` if equal."""
  wins = jnp.abs(tree.wide(y)) >= jnp.abs(tree.wide(x))
  return jnp.where(wins, y, x)
