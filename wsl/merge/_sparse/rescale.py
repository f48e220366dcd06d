"""Rescaling edited task vectors to the norms they had."""

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _stack

_NORMS = ('l1', 'l2', 'max')
# Norms below it are not divided by, as in mergekit.
_LEAST = 1e-7
_ENTRIES = tree.Entries(lead=1, neutral=0.0)


@deltas_lib.on_stacks
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

  Equals mergekit 0.1.5 for ``'l1'``, the norm that its configuration reaches.
  """
  models = _stack.count('rescale', edited)
  if _stack.count('rescale', deltas) != models:
    raise ValueError(
      'rescale: edited and deltas stack different numbers of models'
    )
  _checks.choose('rescale: norm', norm, dict.fromkeys(_NORMS))
  before = tree.conform('rescale: the deltas', deltas, 'the edited', edited)
  restored = lambda x, y: restore_leaf(x, y, norm=norm)
  return _stack.fuse(
    (edited, before), lambda both: jax.tree.map(restored, *both)
  )


def restore_leaf(
  edited: types.Array, x: types.Array, *, norm: str
) -> types.Array:
  """Restores the norm of each model of one leaf, in memory or on demand."""
  if norm == 'max' or not tree.in_files(x, above=_stack.LARGE):
    return tree.apply_kernel(restore, edited, x, norm=norm)
  powers = tree.statistic(
    lambda: tree.total(_powers, edited, x, entries=_ENTRIES, norm=norm),
    (edited, x),
    shape=(2, x.shape[0]),
    dtype=np.float64,
  )
  return tree.apply_kernel(_scale, edited, powers=powers, norm=norm)


def restore(edited: types.Array, x: types.Array, *, norm: str) -> types.Array:
  """Restores the norm of each model of one leaf ``[T, ...]``."""
  wide = tree.wide(edited)
  after, before = _norm(wide, norm), _norm(tree.wide(x), norm)
  return _weigh(wide, before, after).astype(edited.dtype)


def _scale(
  edited: types.Array, *, powers: types.Array, norm: str
) -> types.Array:
  """Restores norms whose powers after and before the edit are ``[2, T]``."""
  wide = tree.wide(edited)
  norms = powers if norm == 'l1' else jnp.sqrt(powers)
  after, before = jnp.unstack(norms.astype(wide.real.dtype))
  return _weigh(wide, before, after).astype(edited.dtype)


def _weigh(
  wide: types.Array, before: types.Array, after: types.Array
) -> types.Array:
  """Scales each model by the ratio of two norms, ``[T]``."""
  tiny = (before < _LEAST) | (after < _LEAST)
  factor = jnp.where(tiny, 1, before / jnp.where(tiny, 1, after))
  return _stack.weigh(wide, factor)


def _powers(edited: types.Array, x: types.Array, *, norm: str) -> types.Array:
  """Returns the sums of magnitudes or of squares, ``[2, T]``."""
  power = jnp.abs if norm == 'l1' else tree.square
  sums = [tree.sum_entries(power(tree.wide(y))) for y in (edited, x)]
  return jnp.stack(sums)


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
