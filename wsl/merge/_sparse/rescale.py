"""Rescaling edited task vectors to the norms they had."""

import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _checks, _stack

_NORMS = ('l1', 'l2', 'max')
# Norms below it are not divided by, as in mergekit.
_LEAST = 1e-7


def rescale(
  edited: types.Deltas, deltas: types.Deltas, *, norm: str = 'l1'
) -> types.Deltas:
  r"""Restores the norm that each leaf of each model had before an edit.

  .. math:: \tilde\tau_t \, \frac{\|\tau_t\|}{\|\tilde\tau_t\|}

  Args:
    edited: edited task vectors, every leaf ``[T, ...]``, of ``trim`` or
      ``breadcrumbs``, for example.
    deltas: the task vectors before the edit.
    norm: ``'l1'`` (mergekit's ``rescale: true``), ``'l2'`` or ``'max'``.

  Returns:
    The rescaled task vectors. A leaf is left as it is where one of the norms is
    below 1e-7.

  Raises:
    ValueError: if the trees differ, or ``norm`` is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> before = {'w': jnp.asarray([[1.0, -3.0]])}
    >>> after = {'w': jnp.asarray([[0.0, -3.0]])}
    >>> rescale(after, before)['w'].tolist()
    [[0.0, -4.0]]

  Reference:
    mergekit 0.1.5, parameter ``rescale``.
  """
  models = _stack.count('rescale', edited)
  if _stack.count('rescale', deltas) != models:
    raise ValueError(
      'rescale: edited and deltas stack different numbers of models'
    )
  _checks.choose('rescale: norm', norm, dict.fromkeys(_NORMS))
  before = tree.conform('rescale: the deltas', deltas, 'the edited', edited)
  return tree.map(restore, edited, before, norm=norm)


def restore(edited: types.Array, x: types.Array, *, norm: str) -> types.Array:
  """Restores the norm of each model of one leaf ``[T, ...]``."""
  wide = tree.wide(edited)
  before, after = _norm(tree.wide(x), norm), _norm(wide, norm)
  tiny = (before < _LEAST) | (after < _LEAST)
  factor = jnp.where(tiny, 1, before / jnp.where(tiny, 1, after))
  return _stack.weigh(wide, factor).astype(edited.dtype)


def _norm(x: types.Array, norm: str) -> types.Array:
  """Returns the norm of each model, ``[T]``."""
  size = jnp.abs(x)
  if norm == 'l1':
    return tree.sum_entries(size)
  if norm == 'l2':
    square = tree.sum_entries(jnp.square(size))
    return jnp.where(
      square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square))
    )
  return jnp.max(size, axis=tuple(range(1, x.ndim)), initial=0)
