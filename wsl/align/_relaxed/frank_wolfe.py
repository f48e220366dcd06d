"""The Frank-Wolfe algorithm over doubly stochastic matrices of N models."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.align import _assignment, _permutation, _soft, _symmetry
from wsl.align._relaxed import objective, projection


def climb(
  models: objective.Leaves,
  matrices: _soft.Matrices,
  *,
  symmetry: _symmetry.Symmetry,
  solver: _assignment.Solver,
  turns: np.ndarray,
  max_sweeps: int,
  tolerance: float,
  patience: int,
) -> tuple[_soft.Matrices, list[float]]:
  """Sweeps over all models until little is gained.

  Args:
    models: leaves of N models, ``[N, ...]``.
    matrices: for each group ``[N, *outer, *free outer, n, n]``.
    symmetry: the symmetry of the models.
    solver: an assignment solver.
    turns: which models step together, ``[turns, K]``.
    max_sweeps: the greatest number of sweeps.
    tolerance: a sweep that gains less than this fraction is small.
    patience: how many small sweeps in a row are the end.

  Returns:
    The last matrices, and what each sweep has gained, >= 0.
  """
  gains: list[float] = []
  small = 0
  while len(gains) < max_sweeps and small < patience:
    sums = objective.total(models, matrices, symmetry=symmetry)
    height, gained = 0.0, 0.0
    for chosen in turns:
      for names in objective.levels(symmetry, models):
        value, slopes, start = objective.ascend(
          models, matrices, sums, chosen, symmetry=symmetry, names=names
        )
        ends = _vertices(slopes, matrices, chosen, solver)
        form, changes = objective.segment(
          models,
          matrices,
          ends,
          start,
          sums,
          chosen,
          symmetry=symmetry,
          names=names,
        )
        size, gain, weights = objective.best_step(np.asarray(form, np.float64))
        matrices, sums = objective.advance(
          matrices, ends, sums, changes, chosen, size, weights
        )
        height, gained = height + abs(float(value)), gained + gain
    gains += [gained]
    small = small + 1 if gained <= tolerance * height else 0
    if not gained:
      break
  return matrices, gains


def _vertices(
  slopes: _soft.Matrices,
  matrices: _soft.Matrices,
  chosen: np.ndarray,
  solver: _assignment.Solver,
) -> dict[str, np.ndarray]:
  """Returns the best permutation matrices, or the old ones at no slope."""
  ends = {}
  for name, x in slopes.items():
    slope = np.asarray(x)
    eye = np.eye(slope.shape[-1], dtype=slope.dtype)
    flat = (slope == 0).all((-1, -2), keepdims=True)
    old = np.asarray(matrices[name])[chosen]
    ends[name] = np.where(flat, old, eye[np.asarray(solver(slope))])
  return ends


def begin(
  initial: str | Sequence[_permutation.Permutation],
  count: int,
  symmetry: _symmetry.Symmetry,
  key: types.PRNGKey,
  dtype: np.dtype,
) -> _soft.Matrices:
  """Returns the first matrices, ``[N, *outer, *free outer, n, n]``."""
  if not isinstance(initial, str):
    return harden(initial, symmetry, dtype)
  if initial == 'identity':
    return harden([_permutation.identity(symmetry)] * count, symmetry, dtype)

  def center(group: _symmetry.Factor, key: types.PRNGKey) -> types.Array:
    shape = (count, *_soft.shape(group, symmetry))
    logits = jax.random.normal(key, shape, dtype)
    drawn = projection.sinkhorn_project(logits, temperature=1.0, iterations=50)
    return (drawn + 1 / group.size) / 2

  keys = jax.random.split(key, len(symmetry.groups))
  return {
    group.name: center(group, k) for group, k in zip(symmetry.groups, keys)
  }


def harden(
  permutations: Sequence[_permutation.Permutation],
  symmetry: _symmetry.Symmetry,
  dtype: np.dtype,
) -> _soft.Matrices:
  """Returns the matrices of N permutations."""
  each = [_soft.harden(g, symmetry=symmetry, dtype=dtype) for g in permutations]
  return jax.tree.map(lambda *x: jnp.stack(x), *each)
