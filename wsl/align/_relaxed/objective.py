r"""The matching objective of N models, its gradients and its form on a segment.

Each model is mapped into a common basis, the universe:

.. math:: J = \sum_{p < q} \langle X^p, X^q \rangle =
  \tfrac{1}{2} \left(\|S\|^2 - \sum_p \|X^p\|^2\right), \qquad
  X^p = P^p \theta^p, \quad S = \sum_p X^p

By the second form, J and all its gradients cost N applications of matrices
instead of one for each of the N (N - 1) / 2 pairs.
"""

from collections.abc import Iterable
import functools
import itertools
from typing import TypeAlias

import jax
import jax.numpy as jnp

from wsl import types
from wsl.align import _soft, _symmetry

Leaves: TypeAlias = dict[str, types.Array]  # by name, [N, ...]
_jit = functools.partial(jax.jit, static_argnames=('symmetry', 'names'))


@functools.partial(jax.jit, static_argnames='symmetry')
def universe_sum(
  models: Leaves, matrices: _soft.Matrices, *, symmetry: _symmetry.Symmetry
) -> Leaves:
  """Returns the sum S of N models in the universe, leaves ``[...]``."""
  moved = _apply_each(models, matrices, symmetry)
  return {leaf: x.sum(0) for leaf, x in moved.items()}


@functools.partial(jax.jit, static_argnames='symmetry')
def value(
  models: Leaves, matrices: _soft.Matrices, *, symmetry: _symmetry.Symmetry
) -> types.Array:
  """Returns the objective J of N models."""
  moved = _apply_each(models, matrices, symmetry)
  others = {leaf: x.sum(0)[None] - x for leaf, x in moved.items()}
  return _dot(moved, others) / 2


@_jit
def gradient(
  models: Leaves,
  matrices: _soft.Matrices,
  sums: Leaves,
  chosen: types.Array,
  *,
  symmetry: _symmetry.Symmetry,
  names: tuple[str, ...],
) -> tuple[types.Array, _soft.Matrices, Leaves]:
  r"""Returns the objective of some models and its gradients.

  .. math:: \nabla_{P^p} J = \nabla_{P^p} \langle X^p,
    \mathrm{const}(S - X^p) \rangle

  P^p enters J through X^p alone, and dJ = <dX^p, S - X^p>: the gradient is one
  vector-Jacobian product with the cotangent S - X^p.

  Args:
    models: leaves of N models, ``[N, ...]``.
    matrices: for each group ``[N, *outer, *free outer, n, n]``.
    sums: the sum S of all models in the universe, leaves ``[...]``.
    chosen: the indices ``[K]`` of some models.
    symmetry: the symmetry of the models.
    names: the groups to differentiate by; leaves without them are skipped.

  Returns:
    :math:`\tfrac{1}{2} \sum_p \langle X^p, S - X^p \rangle` over the K models,
    the gradients of J by their matrices, ``[K, ...]``, and the K models in the
    universe, leaves ``[K, ...]``.
  """
  models, matrices = _select(models, matrices, chosen, symmetry, names)
  moved, pull = jax.vjp(
    lambda some: _apply_each(models, matrices | some, symmetry),
    {name: matrices[name] for name in names},
  )
  # One half: every pair of chosen models occurs twice in the sum.
  others = {leaf: sums[leaf][None] - x for leaf, x in moved.items()}
  return _dot(moved, others) / 2, pull(others)[0], moved


@_jit
def line_form(
  models: Leaves,
  matrices: _soft.Matrices,
  ends: _soft.Matrices,
  start: Leaves,
  sums: Leaves,
  chosen: types.Array,
  *,
  symmetry: _symmetry.Symmetry,
  names: tuple[str, ...],
) -> tuple[types.Array, list[Leaves]]:
  r"""Returns J on the segment between two sets of matrices, as a form.

  .. math:: J(\gamma) = w^\top K w + \mathrm{const}, \qquad
    w = (1, \ell_1(\gamma), \dots, \ell_m(\gamma))

  with the Lagrange polynomials :math:`\ell_a` of the nodes :math:`a / m`. J has
  degree 2 m in the step, or m if a single model moves.

  Args:
    models: leaves of N models, ``[N, ...]``.
    matrices: for each group ``[N, *outer, *free outer, n, n]``.
    ends: the matrices of K models at the end of the segment, ``[K, ...]``.
    start: the K models at its start, leaves ``[K, ...]``.
    sums: the sum S of all models in the universe, leaves ``[...]``.
    chosen: the indices ``[K]`` of the models that move.
    symmetry: the symmetry of the models.
    names: the groups that move.

  Returns:
    The form K ``[m + 1, m + 1]``; and the m changes of S at the nodes from 1,
    so that :math:`S(\gamma) = S + \sum_a \ell_a(\gamma) \Delta_a`.
  """
  # If m axes of a block move, X^p is a polynomial of degree m in the step, so
  # it is interpolated exactly by its values at m + 1 nodes. As the Lagrange
  # polynomials add up to 1, X^p = X^p(0) + sum_a l_a (X^p(a / m) - X^p(0)),
  # and so is S. J = (|S|^2 - sum_p |X^p|^2) / 2 is quadratic in these terms.
  models, matrices = _select(models, matrices, chosen, symmetry, names)
  degree = _max_moved_axes(symmetry, tuple(models), names)

  def along(step: float) -> Leaves:
    direction = {name: ends[name] - matrices[name] for name in names}
    new = {name: matrices[name] + step * direction[name] for name in names}
    return _apply_each(models, matrices | new, symmetry)

  basis = [start]
  for a in range(1, degree + 1):
    basis += [jax.tree.map(jnp.subtract, along(a / degree), basis[0])]
  total = [{leaf: x.sum(0) for leaf, x in each.items()} for each in basis]
  total[0] = {leaf: sums[leaf] for leaf in models}  # includes fixed models
  gram = lambda each: jnp.stack(
    [jnp.stack([_dot(a, b) for b in each]) for a in each]
  )
  return (gram(total) - gram(basis)) / 2, total[1:]


@jax.jit
def take_step(
  matrices: _soft.Matrices,
  ends: _soft.Matrices,
  sums: Leaves,
  changes: list[Leaves],
  chosen: types.Array,
  step: types.Scalar,
  weights: list[types.Scalar],
) -> tuple[_soft.Matrices, Leaves]:
  r"""Takes a step on the segment of ``line_form``.

  .. math:: P \leftarrow P + \gamma (P_{end} - P), \qquad
    S \leftarrow S + \sum_a \ell_a(\gamma) \Delta_a

  Args:
    matrices: for each group ``[N, *outer, *free outer, n, n]``.
    ends: the matrices of K models at the end of the segment, ``[K, ...]``.
    sums: the sum S of all models in the universe, leaves ``[...]``.
    changes: the m changes of S at the nodes.
    chosen: the indices ``[K]`` of the models that move.
    step: gamma, 0 .. 1.
    weights: the m values of the Lagrange polynomials.

  Returns:
    The matrices of all models, and the new sum.
  """
  scaled = lambda weight, x: jnp.asarray(weight, x.dtype) * x
  moved = {
    name: x[chosen] + scaled(step, ends[name] - x[chosen])
    for name, x in matrices.items()
    if name in ends
  }
  placed = {name: matrices[name].at[chosen].set(moved[name]) for name in moved}
  for weight, change in zip(weights, changes):
    sums = sums | {n: sums[n] + scaled(weight, x) for n, x in change.items()}
  return matrices | placed, sums


def groups_by_depth(
  symmetry: _symmetry.Symmetry, leaves: Iterable[str]
) -> list[tuple[str, ...]]:
  """Returns the groups of some leaves by nesting depth, deepest first.

  A dependent group has a matrix for each pair of outer indices, so the units of
  each pair are matched before the outer group chooses among the pairs.
  """
  found = {g for leaf in leaves for g in _soft.groups_of(symmetry.plan(leaf))}
  by_depth: dict[int, list[str]] = {}
  for group in symmetry.groups:
    if group.name in found:
      depth = len(_soft.free_outer(group, symmetry))
      by_depth.setdefault(depth, []).append(group.name)
  return [tuple(by_depth[depth]) for depth in sorted(by_depth, reverse=True)]


def _select(
  models: Leaves,
  matrices: _soft.Matrices,
  chosen: types.Array,
  symmetry: _symmetry.Symmetry,
  names: tuple[str, ...],
) -> tuple[Leaves, _soft.Matrices]:
  """Returns some models, restricted to the leaves with some groups."""
  some = {
    leaf: x[chosen]
    for leaf, x in models.items()
    if set(names) & set(_soft.groups_of(symmetry.plan(leaf)))
  }
  return some, {name: x[chosen] for name, x in matrices.items()}


def _dot(a: Leaves, b: Leaves) -> types.Array:
  """Returns the inner product of two sets of leaves."""
  return jnp.stack([jnp.sum(a[leaf] * b[leaf]) for leaf in a]).sum()


def _apply_each(
  models: Leaves, matrices: _soft.Matrices, symmetry: _symmetry.Symmetry
) -> Leaves:
  """Applies to each model its own matrices."""
  return jax.vmap(lambda p, m: _soft.apply(p, m, symmetry=symmetry))(
    models, matrices
  )


def _max_moved_axes(
  symmetry: _symmetry.Symmetry, leaves: tuple[str, ...], names: tuple[str, ...]
) -> int:
  """Returns the largest number of axes of one block that some groups move."""
  count = lambda factors: sum(f.name in names for f in factors)
  return max(
    [1]
    + [
      count([f for segment in block for f in segment])
      for leaf in leaves
      for block in itertools.product(*symmetry.plan(leaf))
    ]
  )
