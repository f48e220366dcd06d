r"""The sum of inner products of N models in one basis, and its derivatives.

.. math:: J = \sum_{p < q} \langle X^p, X^q \rangle =
  \tfrac{1}{2} \left(\|S\|^2 - \sum_p \|X^p\|^2\right), \qquad
  X^p = P^p \theta^p, \quad S = \sum_p X^p

so that J and all its gradients cost N applications, not N squared.
"""

from collections.abc import Iterable
import functools
import itertools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.align import _soft, _symmetry

Leaves: TypeAlias = dict[str, types.Array]  # by name, [N, ...]
_jit = functools.partial(jax.jit, static_argnames=('symmetry', 'names'))


@functools.partial(jax.jit, static_argnames='symmetry')
def total(
  models: Leaves, matrices: _soft.Matrices, *, symmetry: _symmetry.Symmetry
) -> Leaves:
  """Returns the sum S of N models in the universe, leaves ``[...]``."""
  moved = _move(models, matrices, symmetry)
  return {leaf: x.sum(0) for leaf, x in moved.items()}


@_jit
def ascend(
  models: Leaves,
  matrices: _soft.Matrices,
  sums: Leaves,
  chosen: types.Array,
  *,
  symmetry: _symmetry.Symmetry,
  names: tuple[str, ...],
) -> tuple[types.Array, _soft.Matrices, Leaves]:
  r"""Returns what some models share with all others, and its gradients.

  .. math:: \nabla_{P^p} J = \nabla_{P^p} \langle X^p,
    \mathrm{const}(S - X^p) \rangle

  Args:
    models: leaves of N models, ``[N, ...]``.
    matrices: for each group ``[N, *outer, *free outer, n, n]``.
    sums: the sum S of all models in the universe, leaves ``[...]``.
    chosen: the indices ``[K]`` of some models.
    symmetry: the symmetry of the models.
    names: the groups to differentiate by; only their leaves are looked at.

  Returns:
    :math:`\tfrac{1}{2} \sum_p \langle X^p, S - X^p \rangle` over the K models,
    the gradients of J by their matrices, ``[K, ...]``, and the K models where
    they are, leaves ``[K, ...]``.
  """
  models, matrices = _choose(models, matrices, chosen, symmetry, names)
  moved, pull = jax.vjp(
    lambda some: _move(models, matrices | some, symmetry),
    {name: matrices[name] for name in names},
  )
  others = {leaf: sums[leaf][None] - x for leaf, x in moved.items()}
  return _dot(moved, others) / 2, pull(others)[0], moved


@_jit
def segment(
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
  r"""Measures J along the segment from matrices to others.

  A model of which m axes of a block move is a polynomial of degree m in the
  step, given by its values at m + 1 nodes; J is one of degree 2 m, or m if a
  single model moves.

  Args:
    models: leaves of N models, ``[N, ...]``.
    matrices: for each group ``[N, *outer, *free outer, n, n]``.
    ends: where the matrices of K models move to, ``[K, ...]``.
    start: where the K models are, leaves ``[K, ...]``.
    sums: the sum S of all models in the universe, leaves ``[...]``.
    chosen: the indices ``[K]`` of the models that move.
    symmetry: the symmetry of the models.
    names: the groups that move.

  Returns:
    A form K ``[m + 1, m + 1]`` with :math:`J(\gamma) = w^\top K w` but for a
    constant, where :math:`w = (1, \ell_1(\gamma), \dots, \ell_m(\gamma))` holds
    the Lagrange polynomials of the nodes :math:`a / m`; and the m changes of S
    at the nodes from 1, whose sum weighted by w is that at a step.
  """
  models, matrices = _choose(models, matrices, chosen, symmetry, names)
  degree = _degree(symmetry, tuple(models), names)

  def along(step: float) -> Leaves:
    way = {name: ends[name] - matrices[name] for name in names}
    new = {name: matrices[name] + step * way[name] for name in names}
    return _move(models, matrices | new, symmetry)

  basis = [start]
  for a in range(1, degree + 1):
    basis += [jax.tree.map(jnp.subtract, along(a / degree), basis[0])]
  full = [{leaf: x.sum(0) for leaf, x in each.items()} for each in basis]
  full[0] = {leaf: sums[leaf] for leaf in models}  # of those that stay, too
  gram = lambda each: jnp.stack(
    [jnp.stack([_dot(a, b) for b in each]) for a in each]
  )
  return (gram(full) - gram(basis)) / 2, full[1:]


@jax.jit
def advance(
  matrices: _soft.Matrices,
  ends: _soft.Matrices,
  sums: Leaves,
  changes: list[Leaves],
  chosen: types.Array,
  step: types.Scalar,
  weights: list[types.Scalar],
) -> tuple[_soft.Matrices, Leaves]:
  """Takes a step along the segment; returns all matrices and the new sum."""
  part = lambda weight, x: jnp.asarray(weight, x.dtype) * x
  moved = {
    name: x[chosen] + part(step, ends[name] - x[chosen])
    for name, x in matrices.items()
    if name in ends
  }
  placed = {name: matrices[name].at[chosen].set(moved[name]) for name in moved}
  for weight, change in zip(weights, changes):
    sums = sums | {n: sums[n] + part(weight, x) for n, x in change.items()}
  return matrices | placed, sums


class Step(NamedTuple):
  """A place on the segment.

  Attributes:
    size: the step, from 0 to 1.
    gain: by how much J is greater there.
    weights: the values of the m Lagrange polynomials of the nodes from 1.
  """

  size: float
  gain: float
  weights: list[float]


def best_step(form: np.ndarray) -> Step:
  """Maximises the polynomial of ``segment`` over steps in [0, 1], exactly.

  Args:
    form: K ``[m + 1, m + 1]``.

  Returns:
    The best step, of gain >= 0.
  """
  poly = np.polynomial.polynomial
  degree = len(form) - 1
  basis: list[np.ndarray] = [np.ones(1)]
  for a in range(1, degree + 1):
    roots = [b / degree for b in range(degree + 1) if b != a]
    basis += [poly.polyfromroots(roots)]
    basis[a] /= poly.polyval(a / degree, basis[a])
  gain = np.zeros(1)
  for a in range(degree + 1):
    for b in range(degree + 1):
      if a or b:
        term = form[a, b] * poly.polymul(basis[a], basis[b])
        gain = poly.polyadd(gain, term)
  slope = poly.polyder(gain)
  flat = poly.polyroots(poly.polytrim(slope, 1e-14 * np.abs(slope).max()))
  flat = flat.real[(np.abs(flat.imag) < 1e-6) & (flat.real > 0)]
  sizes = np.asarray([0.0, 1.0, *flat[flat < 1]])
  values = poly.polyval(sizes, gain)
  values[0] = 0.0
  best = int(np.argmax(values))
  weights = [float(poly.polyval(sizes[best], b)) for b in basis[1:]]
  return Step(float(sizes[best]), float(values[best]), weights)


def levels(
  symmetry: _symmetry.Symmetry, leaves: Iterable[str]
) -> list[tuple[str, ...]]:
  """Returns the leaves' groups by their number of outer groups, most first."""
  found = {g for leaf in leaves for g in _soft.groups_of(symmetry.plan(leaf))}
  by_depth: dict[int, list[str]] = {}
  for group in symmetry.groups:
    if group.name in found:
      depth = len(_soft.free_outer(group, symmetry))
      by_depth.setdefault(depth, []).append(group.name)
  return [tuple(by_depth[depth]) for depth in sorted(by_depth, reverse=True)]


def _choose(
  models: Leaves,
  matrices: _soft.Matrices,
  chosen: types.Array,
  symmetry: _symmetry.Symmetry,
  names: tuple[str, ...],
) -> tuple[Leaves, _soft.Matrices]:
  """Takes some models, and of these the leaves in which groups occur."""
  some = {
    leaf: x[chosen]
    for leaf, x in models.items()
    if set(names) & set(_soft.groups_of(symmetry.plan(leaf)))
  }
  return some, {name: x[chosen] for name, x in matrices.items()}


def _dot(a: Leaves, b: Leaves) -> types.Array:
  return jnp.stack([jnp.sum(a[leaf] * b[leaf]) for leaf in a]).sum()


def _move(
  models: Leaves, matrices: _soft.Matrices, symmetry: _symmetry.Symmetry
) -> Leaves:
  return jax.vmap(lambda p, m: _soft.apply(p, m, symmetry=symmetry))(
    models, matrices
  )


def _degree(
  symmetry: _symmetry.Symmetry, leaves: tuple[str, ...], names: tuple[str, ...]
) -> int:
  """Returns how many axes of one block move at most."""
  count = lambda factors: sum(f.name in names for f in factors)
  return max(
    [1]
    + [
      count([f for segment in block for f in segment])
      for leaf in leaves
      for block in itertools.product(*symmetry.plan(leaf))
    ]
  )
