r"""Latent matrices and numbers, whose projections are permutations and signs.

The straight-through matching of Git Re-Basin trains a model
:math:`\tilde\theta`, and permutes by the assignment of its gains
:math:`S_{ij} = \langle \tilde\theta_i, \theta_j \rangle` with the moving model.
Here the latents are gains themselves. They start as those with the fixed model,
and a gradient step changes both alike, as
:math:`\partial L / \partial P_{ij} = \langle \partial L / \partial
(P\theta)_i, \theta_j \rangle`.
"""

from collections.abc import Mapping
import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _assignment, _permutation, _soft
from wsl.align._learned import chart as chart_lib
from wsl.align._learned import path as path_lib
from wsl.align._learned import tangents

Latents: TypeAlias = dict[str, types.Array]

_LEAST_SIGN = 0.1  # of a latent sign, in units of the mean of a group


def begin(
  models: Mapping[str, types.Params],
  tables: tangents.Tables,
  signs: Mapping[str, np.ndarray],
  *,
  chart: chart_lib.Chart,
  names: tuple[str, ...],
  solver: _assignment.Solver,
) -> Latents:
  """Returns latents whose projections are the identity and the given signs.

  They are gains, in units of the mean gain of a matched pair. Where another
  permutation has higher gains, those of the given one are raised.

  Args:
    models: the models by end, the moving one in its initial order.
    tables: the tables of other actions on the moving model.
    signs: the initial signs.
    chart: the coordinates that are learned.
    names: the leaves that count.
    solver: solves assignments.
  """
  symmetry = chart.symmetry
  dtype = _soft.matrix_dtype(dict(models))
  shapes = {g.name: _soft.shape(g, symmetry) for g in symmetry.groups}
  start: dict[str, Any] = {
    n: np.broadcast_to(np.eye(s[-1], dtype=dtype), s) for n, s in shapes.items()
  }
  start |= {n: x.astype(dtype) for n, x in signs.items()}
  if not start:
    return {}
  # S = d <fixed, P moving> / dP at the initial order, all groups at once.
  gains = _gains(start, dict(models), tables, chart=chart, names=names)
  found = {}
  for name, hard in start.items():
    gain = np.asarray(gains[name])
    if name in signs:
      gain = gain * hard
      unit = np.abs(gain).mean() or 1
      found[name] = hard * np.maximum(gain / unit, _LEAST_SIGN)
    else:
      found[name] = _raised(gain, hard, solver)
  return {n: jax.device_put(x.astype(dtype)) for n, x in found.items()}


def _raised(
  gains: np.ndarray, hard: np.ndarray, solver: _assignment.Solver
) -> np.ndarray:
  """Scales gains, and raises their diagonal until it is the best assignment.

  A matrix of zeros belongs to a pair of outer indices that are not matched; it
  becomes the identity.
  """
  matched = np.abs(np.diagonal(gains, 0, -2, -1))
  unit = matched[matched > 0].mean() if np.any(matched) else 1.0
  active = np.any(gains != 0, axis=(-2, -1), keepdims=True)
  latent = np.where(active, gains / unit, hard)
  # Raising the diagonal by c adds c to each unit that stays: for a large c the
  # identity is best. The least c is found to a factor of 2.
  more = 1 / 64
  while not np.array_equal(
    np.asarray(solver(latent)), np.argmax(hard, axis=-1)
  ):
    latent = latent + more * hard
    more *= 2
  return latent


@functools.partial(jax.jit, static_argnames=('chart', 'names'))
def _gains(
  start: Latents,
  models: dict[str, types.Params],
  tables: tangents.Tables,
  *,
  chart: chart_lib.Chart,
  names: tuple[str, ...],
) -> Latents:
  """Returns the derivative of the agreement of both models."""

  def agreement(at: Latents) -> types.Array:
    matrices = {n: x for n, x in at.items() if n not in chart.signs}
    signs = {n: at[n] for n in chart.signs}
    moved = path_lib.endpoint(
      models['moving'], matrices, tables | signs, symmetry=chart.symmetry
    )
    pair = tree.named(models['fixed']), tree.named(moved)
    wide = [tree.widen(*(leaves[n] for leaves in pair)) for n in names]
    dtype = next(iter(at.values())).dtype
    return sum(
      (jnp.sum(x * y).astype(dtype) for x, y in wide),
      start=jnp.zeros((), dtype),
    )

  return jax.grad(agreement)(start)


def signs_of(latents: Latents, chart: chart_lib.Chart) -> dict[str, Any]:
  """Returns the signs of latents, in their dtypes; 0 counts as positive."""
  one = lambda x: jnp.where(x < 0, -1, 1).astype(x.dtype)
  return {n: one(latents[n]) for n in chart.signs}


def harden(
  permutation: Mapping[str, types.Array],
  latents: Latents,
  chart: chart_lib.Chart,
) -> _soft.Matrices:
  """Returns the matrices of a permutation, in the dtype of the latents."""
  if not permutation:
    return {}
  dtype = latents[next(iter(permutation))].dtype
  return _soft.harden(dict(permutation), symmetry=chart.symmetry, dtype=dtype)


def project(
  latents: Latents, chart: chart_lib.Chart, solver: _assignment.Solver
) -> _permutation.Permutation:
  """Returns the permutations of highest latents, by assignments."""
  return _soft.round(
    {g.name: latents[g.name] for g in chart.symmetry.groups},
    symmetry=chart.symmetry,
    solver=solver,
  )
