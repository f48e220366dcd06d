"""Blocks of a leaf in two models of different widths."""

from collections.abc import Mapping
import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _soft, _symmetry
from wsl.align._transport import contraction

Couplings = dict[str, np.ndarray]  # ``[*outer, *free outer, n, m]`` by group


class Axis(NamedTuple):
  """One axis of a block.

  Attributes:
    group: the name of its group, or ``''`` if it is pinned.
    outer: the axes on which its coupling depends.
    free_outer: those of them that are not pinned.
    contracted: whether the model sums over it.
  """

  group: str
  outer: tuple[int, ...]
  free_outer: tuple[int, ...]
  contracted: bool

  def labels(self, i: int) -> contraction.Labels:
    """Returns the labels of a coupling of this axis, the i-th of its block."""
    return (*self.outer, *(~o for o in self.free_outer), i, ~i)


class Block(NamedTuple):
  """One block of a leaf in both models, float64.

  Attributes:
    axes: its axes.
    fixed: ``[*sizes]`` in the fixed model.
    moving: ``[*sizes]`` in the moving model.
  """

  axes: tuple[Axis, ...]
  fixed: np.ndarray
  moving: np.ndarray


def load(
  fixed: types.Params,
  moving: types.Params,
  symmetries: tuple[_symmetry.Symmetry, _symmetry.Symmetry],
  contracted: Mapping[str, frozenset[int]],
  leaves: types.Leaves,
) -> list[Block]:
  """Reads the selected float leaves of two models.

  Args:
    fixed: the fixed model, in memory or on demand.
    moving: the moving model, of the same leaves and other widths.
    symmetries: of both models.
    contracted: for each leaf its factors that the model sums over, by their
      position among all factors of the leaf.
    leaves: selects leaves by name and shape.

  Returns:
    The blocks of both.

  Raises:
    ValueError: naming the leaf that is not finite.
  """
  chosen, found = tree.named(tree.select(fixed, leaves)), []
  others = tree.named(moving)
  for name, leaf in tree.named(fixed).items():
    if not (chosen[name] and jnp.issubdtype(leaf.dtype, jnp.floating)):
      continue
    x, y = _read(leaf, 'fixed', name), _read(others[name], 'moving', name)
    pieces = (
      _blocks.to_blocks(z, symmetry.layout(name))
      for z, symmetry in zip((x, y), symmetries)
    )
    axes = axes_of(name, symmetries[0], contracted)
    for place, (a, _), (b, _) in zip(axes, *pieces):
      found.append(Block(place, a, b))
  return found


def axes_of(
  name: str,
  symmetry: _symmetry.Symmetry,
  contracted: Mapping[str, frozenset[int]],
) -> list[tuple[Axis, ...]]:
  """Returns the axes of each block of a leaf, in the order of its blocks."""
  numbers = itertools.count()
  plan = [
    [[(factor, next(numbers)) for factor in segment] for segment in axis]
    for axis in symmetry.plan(name)
  ]
  result = []
  for segments in itertools.product(*plan):
    factors = [pair for segment in segments for pair in segment]
    names = [factor.name for factor, _ in factors]
    result.append(
      tuple(
        Axis(
          '' if factor.pinned else factor.name,
          tuple(map(names.index, factor.outer)),
          tuple(map(names.index, _soft.free_outer(factor, symmetry))),
          number in contracted[name],
        )
        for factor, number in factors
      )
    )
  return result


def apply(
  x: np.ndarray,
  labels: contraction.Labels,
  axes: tuple[Axis, ...],
  moved: list[int],
  matrices: Mapping[int, np.ndarray],
) -> tuple[np.ndarray, contraction.Labels]:
  """Contracts axes of the moving model with matrices, inner axes first.

  Args:
    x: a block, or a part of one.
    labels: of its axes.
    axes: all axes of the block.
    moved: the axes to contract.
    matrices: for each of them ``[*outer, *free outer, n, m]``.

  Returns:
    The result and its labels: ~i has become i for each moved axis, and outer
    axes that are not moved have both.
  """
  # The matrix of an inner axis depends on the indices (o, o') of an outer axis
  # in both models: sum_o' sum_j R[o, o'] R[o, o', i, j] x[o', j] is evaluated
  # from the inside, so that o' is still there when the inner one is applied.
  for i in sorted(moved, key=lambda i: (-len(axes[i].outer), i)):
    if axes[i].outer or i in labels:
      on_matrix = axes[i].labels(i)
      out = tuple(n for n in dict.fromkeys((*labels, *on_matrix)) if n != ~i)
      x = contraction.contract(x, labels, matrices[i], on_matrix, out)
    else:
      x = contraction.multiply(matrices[i], x, labels.index(~i))
      out = tuple(i if n == ~i else n for n in labels)
    labels = out
  return x, labels


def moving_labels(axes: tuple[Axis, ...]) -> contraction.Labels:
  """Returns the labels of a block of the moving model."""
  return tuple(~i if axis.group else i for i, axis in enumerate(axes))


def _read(leaf: Any, argument: str, name: str) -> np.ndarray:
  """Reads a leaf as float64; raises a ValueError if it is not finite."""
  x = np.asarray(tree.read(leaf)).astype(np.float64)
  if not np.isfinite(x).all():
    raise ValueError(
      f"transport: {argument}: leaf '{name}' has NaN or inf: such a model "
      'cannot be matched'
    )
  return x
