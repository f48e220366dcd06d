"""Accumulates statistics for each use of a weight."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from wsl import types
from wsl.stats._linear_maps import views


class Use(NamedTuple):
  """One way of using a weight; statistics of equal uses are added.

  Attributes:
    leaf: the position of the leaf among the leaves of the parameters.
    axes: the stored axes that are contracted with the input.
    groups: the number of blocks of the weight with an input of their own.
    stacked: as in ``View``.
  """

  leaf: int
  axes: tuple[int, ...]
  groups: int
  stacked: tuple[tuple[int, views.Atoms], ...]


# Maps the rows of a product, inputs [groups, n, d] and outputs [groups, n, m],
# to a statistic [groups, ...] that is additive over rows.
Measure: TypeAlias = Callable[[types.Array, types.Array], types.Array]


def second_moment(inputs: types.Array, outputs: types.Array) -> types.Array:
  """Returns the sum of x x^T over the rows, ``[groups, d, d]``."""
  del outputs
  highest = jax.lax.Precision.HIGHEST
  return jnp.einsum('gnd,gne->gde', inputs, inputs, precision=highest)


class Record:
  """The statistics of all uses, and operations on weights that are no product.

  Attributes:
    measure: the statistic that is summed over the rows of each use.
    depth: the number of scans around the current equations.
    sums: the statistic of each use, ``[groups, ...]``.
    rows: the number of rows in each sum.
    times: the number of products with each leaf.
    added: for pairs (weight, bias) of leaves, the number of times that the
      second was added to a product of the first.
    notes: for each leaf, the operations on it that are no linear map.
    layers: for each leaf with notes, the axes that enclosing scans iterate
      over.
  """

  def __init__(self, measure: Measure = second_moment, depth: int = 0) -> None:
    self.measure = measure
    self.depth = depth
    self.sums: dict[Use, types.Array] = {}
    self.rows: dict[Use, int] = {}
    self.times: dict[int, int] = {}
    self.added: dict[tuple[int, int], int] = {}
    self.notes: dict[int, list[str]] = {}
    self.layers: dict[int, tuple[int, ...]] = {}

  def inner(self) -> 'Record':
    """Returns an empty record for the body of a scan."""
    return Record(self.measure, self.depth + 1)

  def add(self, use: Use, matrix: types.Array, rows: int) -> None:
    """Adds the rows of one more application of a weight."""
    if use in self.sums:
      matrix = self.sums[use] + matrix
    self.sums[use] = matrix
    self.rows[use] = self.rows.get(use, 0) + rows

  def single(self, leaf: int) -> Use | None:
    """Returns the use of a leaf, if there is exactly one."""
    uses = [use for use in self.sums if use.leaf == leaf]
    return uses[0] if len(uses) == 1 else None

  def bias_of(self, leaf: int) -> int | None:
    """Returns the bias of a weight.

    It is the leaf that is added to every product of the weight, and to no
    product of any other weight; ``None`` without such a leaf.
    """
    mine = [pair for pair in self.added if leaf == pair[0]]
    # It has to be added at every use of the weight, and to no other weight.
    if len(mine) != 1 or self.added[mine[0]] != self.times[leaf]:
      return None
    bias = mine[0][1]
    return bias if sum(pair[1] == bias for pair in self.added) == 1 else None

  def note(self, view: views.View, what: str) -> None:
    """Records that an operation on a weight is no linear map."""
    stacked = views.flatten([atoms for _, atoms in view.stacked])
    axes = tuple(sorted({atom.axis for atom in stacked}))
    self._note(view.leaf, what, axes)

  def partition(self) -> tuple[list[types.Array], list[types.Array]]:
    """Returns the sums of constant weights, and those of stacked weights."""
    whole: list[types.Array] = []
    stack: list[types.Array] = []
    for use, matrix in self.sums.items():
      (stack if self._is_layer(use) else whole).append(matrix)
    return whole, stack

  def close(
    self,
    inner: 'Record',
    whole: list[types.Array],
    stack: list[types.Array],
    *,
    length: int,
  ) -> None:
    """Adds the uses found in the body of a scan, and their sums."""
    whole, stack = list(whole), list(stack)
    for use, rows in inner.rows.items():
      if inner._is_layer(use):
        layers = stack.pop(0)
        blocks = layers.reshape(-1, *layers.shape[2:])
        use = use._replace(groups=len(blocks), stacked=use.stacked[:-1])
        self.add(use, blocks, rows)
      else:
        self.add(use, whole.pop(0), rows * length)
    for leaf, times in inner.times.items():
      self.times[leaf] = self.times.get(leaf, 0) + times
    for pair, times in inner.added.items():
      self.added[pair] = self.added.get(pair, 0) + times
    for leaf, notes in inner.notes.items():
      for what in notes:
        self._note(leaf, what, inner.layers[leaf])

  def _note(self, leaf: int, what: str, layers: tuple[int, ...]) -> None:
    """Adds a note once; keeps the fewest axes of layers."""
    notes = self.notes.setdefault(leaf, [])
    if what not in notes:
      notes.append(what)
    known = self.layers.setdefault(leaf, layers)
    self.layers[leaf] = min(known, layers, key=len)

  def _is_layer(self, use: Use) -> bool:
    """Returns True if the innermost scan iterates over the weight."""
    return bool(use.stacked) and use.stacked[-1][0] == self.depth
