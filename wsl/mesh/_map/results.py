"""The results of mapped candidates, collected call by call."""

from typing import NamedTuple

import jax
import numpy as np

from wsl import tree, types
from wsl.mesh._map import calls


class Batch(NamedTuple):
  """The candidates that were evaluated by one call of the compiled program.

  Attributes:
    indices: their positions among all candidates, ``[n]``, ascending.
    results: their results, leaves ``[n, ...]``, numpy arrays.
    done: the number of candidates that are done so far.
    total: N, the number of all candidates.
  """

  indices: np.ndarray
  results: types.Tree
  done: int
  total: int


class Results:
  """The results of all candidates, filled call by call."""

  def __init__(self, devices: int, share: int, total: int) -> None:
    self.devices, self.share, self.total = devices, share, total
    self.leaves: list[np.ndarray] = []
    self.done = 0

  def add(self, rows: calls.Rows) -> Batch:
    """Stores the results of a call; returns those that are not padding."""
    if not self.leaves:
      shape = (self.devices, self.share)
      self.leaves = [
        np.empty((*shape, *y.shape[2:]), y.dtype) for y in rows.leaves
      ]
    for leaf, y in zip(self.leaves, rows.leaves):
      leaf[:, rows.start : rows.stop] = y
    at = np.arange(self.devices)[:, None] * self.share
    indices = (at + np.arange(rows.start, rows.stop)).reshape(-1)
    indices = indices[indices < self.total]
    self.done += len(indices)
    new = [x.reshape(-1, *x.shape[2:])[: len(indices)] for x in rows.leaves]
    return Batch(indices, new, self.done, self.total)

  def whole(self) -> list[np.ndarray]:
    """Returns the results of all candidates, in order."""
    return [y.reshape(-1, *y.shape[2:])[: self.total] for y in self.leaves]


def finite(results: types.Tree) -> np.ndarray:
  """Marks the candidates whose results are all finite.

  Args:
    results: results of ``map_candidates``, every leaf ``[N, ...]``.

  Returns:
    Bools ``[N]``.

  Raises:
    ValueError: if there are no results, or leaves differ in length.

  Example:
    >>> finite({'loss': np.array([0.5, np.nan]), 'step': np.array([1, 2])})
    array([ True, False])
  """
  total = count(results, 'finite: results')
  good = np.ones(total, bool)
  for x in jax.tree.leaves(results):
    with np.errstate(invalid='ignore'):  # narrow floats warn about NaN
      good &= np.isfinite(np.asarray(x)).reshape(total, -1).all(1)
  return good


def count(candidates: types.Tree, label: str = 'map_candidates') -> int:
  """Returns the number of candidates, the length of every leaf."""
  lengths = {}
  for name, leaf in tree.named(candidates).items():
    if not np.shape(leaf):
      raise ValueError(
        f"{label}: leaf '{name}' is one value: give every leaf [N, ...], one "
        'entry for each candidate'
      )
    lengths[name] = np.shape(leaf)[0]
  first = next(iter(lengths), None)
  if first is None or not lengths[first]:
    raise ValueError(f'{label}: no candidates given, at least one is needed')
  for name, length in lengths.items():
    if length != lengths[first]:
      raise ValueError(
        f"{label}: leaf '{name}' has {length} candidates, leaf '{first}' "
        f'{lengths[first]}: give each leaf one entry for each candidate'
      )
  return int(lengths[first])
