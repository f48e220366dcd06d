r"""The Frank-Wolfe algorithm over doubly stochastic matrices of N models.

.. math:: D = \arg\max_{D \in \mathcal{B}} \langle \nabla J(P), D \rangle,
  \qquad P \leftarrow P + \gamma (D - P), \quad
  \gamma = \arg\max_{0 \le \gamma \le 1} J(P + \gamma (D - P))

The feasible set is a product of Birkhoff polytopes, one for each group (and
each pair of outer indices). A linear function on the product separates, and
its maximum on each polytope is at a vertex, a permutation matrix (Birkhoff
1946): D is the solution of one assignment problem for each matrix.
"""

from collections.abc import Callable, Mapping, Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.align import _assignment, _permutation, _soft, _symmetry
from wsl.align._relaxed import line_search, objective, projection

_MAX_EXCESS = 1e-2  # of a row or column of a given matrix over its sum of one


def maximize(
  models: objective.Leaves,
  matrices: _soft.Matrices,
  *,
  symmetry: _symmetry.Symmetry,
  solver: _assignment.Solver,
  schedule: np.ndarray,
  max_sweeps: int,
  tolerance: float,
  patience: int,
  progress: Callable[[int, float], None] | None = None,
) -> tuple[_soft.Matrices, list[float]]:
  """Maximises the objective by sweeps over all models.

  Args:
    models: leaves of N models, ``[N, ...]``.
    matrices: for each group ``[N, *outer, *free outer, n, n]``.
    symmetry: the symmetry of the models.
    solver: an assignment solver.
    schedule: the models of each simultaneous step, ``[steps, K]``.
    max_sweeps: the maximal number of sweeps.
    tolerance: a sweep is small if its gain, relative to J, is below this.
    patience: number of consecutive small sweeps after which to stop.
    progress: called after each sweep with its index and its gain.

  Returns:
    The last matrices, and the gain of each sweep, >= 0.
  """
  gains: list[float] = []
  small = 0
  while len(gains) < max_sweeps and small < patience:
    # Recompute the sum once a sweep: incremental updates accumulate rounding.
    sums = objective.universe_sum(models, matrices, symmetry=symmetry)
    magnitude, gained = 0.0, 0.0
    for chosen in schedule:
      for names in objective.groups_by_depth(symmetry, models):
        value, gradients, start = objective.gradient(
          models, matrices, sums, chosen, symmetry=symmetry, names=names
        )
        ends = _linear_oracle(gradients, matrices, chosen, solver)
        form, changes = objective.line_form(
          models,
          matrices,
          ends,
          start,
          sums,
          chosen,
          symmetry=symmetry,
          names=names,
        )
        step = line_search.line_search(np.asarray(form, np.float64))
        matrices, sums = objective.take_step(
          matrices, ends, sums, changes, chosen, step.size, step.weights
        )
        magnitude += abs(float(value))
        gained += step.gain
    gains += [gained]
    if progress is not None:
      progress(len(gains) - 1, gained)
    small = small + 1 if gained <= tolerance * magnitude else 0
    if not gained:
      break
  return matrices, gains


def _linear_oracle(
  gradients: _soft.Matrices,
  matrices: _soft.Matrices,
  chosen: np.ndarray,
  solver: _assignment.Solver,
) -> dict[str, np.ndarray]:
  """Returns the permutation matrices that maximise the linearised objective."""
  ends = {}
  for name, x in gradients.items():
    gradient = np.asarray(x)
    eye = np.eye(gradient.shape[-1], dtype=gradient.dtype)
    vertices = eye[np.asarray(solver(gradient))]
    # At a zero gradient every point is optimal: the matrix stays in place.
    zero = (gradient == 0).all((-1, -2), keepdims=True)
    old = np.asarray(matrices[name])[chosen]
    ends[name] = np.where(zero, old, vertices)
  return ends


def initial_matrices(
  initial: str | Sequence[Mapping[str, types.Array]],
  count: int,
  symmetry: _symmetry.Symmetry,
  key: types.PRNGKey,
  dtype: np.dtype,
) -> _soft.Matrices:
  """Returns the first iterate of N models.

  Args:
    initial: ``'center'``, ``'identity'``, or N permutations or sets of doubly
      stochastic matrices, as in ``match_many``.
    count: the number N of models.
    symmetry: the symmetry of the models.
    key: draws the matrices of ``'center'``.
    dtype: of the matrices.

  Returns:
    For each group ``[N, *outer, *free outer, n, n]``.
  """
  if not isinstance(initial, str):
    each = [_as_matrices(x, symmetry, dtype) for x in initial]
    return jax.tree.map(lambda *x: jnp.stack(x), *each)
  if initial == 'identity':
    return harden_each(
      [_permutation.identity(symmetry)] * count, symmetry, dtype
    )

  keys = jax.random.split(key, len(symmetry.groups))
  shapes = {g.name: (count, *_soft.shape(g, symmetry)) for g in symmetry.groups}
  return {
    name: _near_center(k, shape, dtype)
    for (name, shape), k in zip(shapes.items(), keys)
  }


@functools.partial(jax.jit, static_argnums=(1, 2))
def _near_center(
  key: types.PRNGKey, shape: tuple[int, ...], dtype: np.dtype
) -> types.Array:
  """Draws doubly stochastic matrices and averages them with the barycentre.

  At the barycentre all units of the universe are equal, so the rows of each
  gradient are equal and every permutation solves the linear problem: the random
  half breaks the symmetry.
  """
  logits = _permutation.normal(key, shape, dtype)
  drawn = projection.sinkhorn_project(logits, temperature=1.0, iterations=50)
  return (drawn + 1 / shape[-1]) / 2


def check_initial(
  initial: str | Sequence[Mapping[str, types.Array]],
  count: int,
  symmetry: _symmetry.Symmetry,
) -> None:
  """Raises a ValueError of ``match_many`` if the start does not fit."""
  if initial in ('center', 'identity'):
    return
  if isinstance(initial, str):
    raise ValueError(
      f"match_many: initial '{initial}' is unknown, expected 'center', "
      "'identity' or a permutation for each model"
    )
  if len(initial) != count:
    raise ValueError(
      f'match_many: initial has {len(initial)} permutations for {count} models'
    )
  for given in initial:
    if not _is_soft(given):
      _permutation.check_permutation(
        dict(given), symmetry, 'match_many: initial'
      )
      continue
    for group in symmetry.groups:
      x = np.asarray(given.get(group.name, np.zeros(())), np.float64)
      expected = _soft.shape(group, symmetry)
      if x.shape != expected:
        raise ValueError(
          f"match_many: initial['{group.name}'] is {list(x.shape)}, expected "
          f'doubly stochastic matrices {list(expected)}'
        )
      sums = np.stack([x.sum(-1), x.sum(-2)])
      if not (x.min() >= 0 and np.abs(sums - 1).max() <= _MAX_EXCESS):
        raise ValueError(
          f"match_many: initial['{group.name}'] is not doubly stochastic: see "
          'align.sinkhorn_project'
        )


def _is_soft(given: Mapping[str, types.Array]) -> bool:
  """Returns True for matrices, False for the indices of a permutation."""
  return any(np.issubdtype(x.dtype, np.floating) for x in given.values())


def _as_matrices(
  given: Mapping[str, types.Array],
  symmetry: _symmetry.Symmetry,
  dtype: np.dtype,
) -> _soft.Matrices:
  """Returns the matrices of a permutation, or the given matrices."""
  if not _is_soft(given):
    return _soft.harden(dict(given), symmetry=symmetry, dtype=dtype)
  return {g.name: jnp.asarray(given[g.name], dtype) for g in symmetry.groups}


def harden_each(
  permutations: Sequence[_permutation.Permutation],
  symmetry: _symmetry.Symmetry,
  dtype: np.dtype,
) -> _soft.Matrices:
  """Returns the permutation matrices of N permutations, ``[N, ...]``."""
  each = [_soft.harden(g, symmetry=symmetry, dtype=dtype) for g in permutations]
  return jax.tree.map(lambda *x: jnp.stack(x), *each)
