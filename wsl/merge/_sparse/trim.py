"""Trim: keep the entries of largest magnitude."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _per_leaf, _stack
from wsl.merge._sparse import mass, rank

# Entries kept beyond floor(density * entries).
EXTRA = {'paper': 0, 'official': 1, 'mergekit': 0, 'peft': 0}


@deltas_lib.on_stacks
def trim(
  deltas: types.Deltas,
  *,
  density: Any = None,
  energy: Any = None,
  deviations: Any = None,
  scope: str = 'global',
  dialect: str = 'paper',
) -> types.Deltas:
  r"""Keeps the entries of largest magnitude of each task vector.

  .. math:: \hat\tau_{t,p} = \tau_{t,p} \, 1[|\tau_{t,p}| \ge m_t],

  where m_t is the k-th largest magnitude of task vector t. All entries equal to
  it are kept, so ties may keep more than k.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    density: fraction of the d entries that is kept, ``0 < density <= 1``: one
      number; ``[T]``, one for each model; or in scope ``'leaf'`` one for each
      leaf, ``{'attn': 0.2, '.*': 0.5}``, as in ``tree.scalars``. Where traced,
      the count is rounded in the dtype of ``density``.
    energy: instead of the density: the share of the squared norm that the kept
      entries have at least, ``0 < energy <= 1``, by the fewest entries; in the
      forms of ``density``. In scope ``'global'`` each leaf is read 33 times, 65
      in float64.
    deviations: instead of the density: entries are kept that differ from the
      mean by more than so many standard deviations, ``>= 0``; in the forms of
      ``density``.
    scope: ``'global'`` ranks over the whole model (the paper), ``'leaf'``
      within each leaf (mergekit, PEFT).
    dialect: ``'paper'``, ``'mergekit'`` and ``'peft'`` keep ``k =
      floor(density * d)`` entries, at least one; ``'official'`` keeps one more
      (``>=`` on the value below the cut).

  Returns:
    The trimmed task vectors, every leaf ``[T, ...]``.

  Raises:
    ValueError: if not one of ``density``, ``energy`` and ``deviations`` is
      given, it is out of range, or an option is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, -4.0, 3.0, 0.5]])}
    >>> trim(deltas, density=0.5)['w'].tolist()
    [[0.0, -4.0, 3.0, 0.0]]
    >>> trim(deltas, energy=0.6)['w'].tolist()
    [[0.0, -4.0, 0.0, 0.0]]

  Reference:
    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models",
    2023, arXiv:2306.01708, section 4.

  Differs from the official code as ``dialect`` says. With ``energy`` that code
  also keeps the last entry of the model, and of equal magnitudes as few as
  suffice.
  """
  given = {'density': density, 'energy': energy, 'deviations': deviations}
  if sum(value is not None for value in given.values()) != 1:
    raise ValueError('trim: give one of density=, energy= and deviations=')
  if density is not None:
    return keep_largest(
      'trim', deltas, density=density, scope=scope, dialect=dialect
    )
  _checks.choose('trim: scope', scope, dict.fromkeys(('global', 'leaf')))
  if energy is not None:
    return mass.keep_energy(deltas, energy=energy, scope=scope)
  return mass.keep_deviations(deltas, deviations=deviations, scope=scope)


def keep_largest(
  function: str,
  deltas: types.Deltas,
  *,
  density: Any,
  scope: str,
  dialect: str = 'paper',
) -> types.Deltas:
  """Trims, see ``trim``; messages name the public ``function``."""
  bounds = thresholds(
    function, deltas, density=density, scope=scope, dialect=dialect
  )
  return keep_above(deltas, bounds)


def keep_above(deltas: types.Deltas, bounds: types.Tree) -> types.Deltas:
  """Zeroes entries below the thresholds of their leaf, ``[1, T]``."""
  return tree.map(_keep, deltas, bounds)


def thresholds(
  function: str,
  deltas: types.Deltas,
  *,
  density: Any,
  scope: str,
  dialect: str,
  dialects: Mapping[str, int] = EXTRA,
) -> types.Tree:
  """Returns the smallest magnitude that ``trim`` keeps, ``[1, T]`` by leaf.

  Args:
    function: the public function, as the user called it.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    density: as in ``trim``.
    scope: as in ``trim``.
    dialect: one of ``dialects``.
    dialects: entries kept beyond floor(density * entries), by dialect.

  Raises:
    ValueError: as ``trim``.
  """
  extra = _checks.choose(f'{function}: dialect', dialect, dict(dialects))
  kept = densities(function, deltas, density, scope)
  return _bounds(function, deltas, kept, scope=scope, extra=extra)


def densities(
  function: str, deltas: types.Deltas, density: Any, scope: str
) -> types.Tree:
  """Returns the fraction of entries kept in each leaf, ``[T]``.

  Raises:
    ValueError: if it is out of range, or of another shape.
  """
  models = _stack.count(function, deltas)
  _per_leaf.one_scope(function, scope, density=density)
  meaning = 'density is the fraction kept'
  check = lambda value: _checks.fraction(
    function, 'density', value, meaning, positive=True
  )
  return _per_leaf.at_leaves(
    function, 'density', density, deltas, models, check, copied=False
  )


def keep(
  function: str,
  deltas: types.Deltas,
  fractions: types.Tree,
  *,
  scope: str,
  extra: int = 0,
) -> types.Deltas:
  """Keeps fractions ``[T]`` of the entries, and some more."""
  bounds = _bounds(function, deltas, fractions, scope=scope, extra=extra)
  return keep_above(deltas, bounds)


def _bounds(
  function: str,
  deltas: types.Deltas,
  fractions: types.Tree,
  *,
  scope: str,
  extra: int,
) -> types.Tree:
  """Returns the smallest magnitude kept, ``[1, T]`` at each leaf."""

  def ranks(size: int, fraction: Any) -> Sequence[Any]:
    (kept,) = rank.floors(size, fraction)
    return [rank.array_module(kept).clip(kept + extra, 1, size)]

  return rank.magnitudes(function, deltas, ranks, fractions, scope=scope)


def _keep(x: types.Array, bounds: types.Array) -> types.Array:
  """Zeroes the entries of each model below its threshold, ``[1, T]``."""
  keep = lambda x, m: jnp.where(tree.reaches(x, m), x, jnp.zeros_like(x))
  return _stack.map_models(keep, x, bounds[0])
