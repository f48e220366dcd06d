"""Constants of a traced function: evaluated only where that tells something.

Rotary tables, masks and fixed slopes break a symmetry along each axis along
which they vary, and only along those.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core
import numpy as np

from wsl import jaxprs
from wsl.align._find import axis_tree

LIMIT = 1 << 22  # entries; larger constants are not looked at
_WHY = 'a constant that varies along it'


class Constant:
  """A value that does not depend on parameters and inputs."""

  __slots__ = ('_value', 'eqn', 'index', 'operands', 'shape')

  def __init__(
    self,
    shape: tuple[int, ...],
    *,
    value: Any = None,
    eqn: core.JaxprEqn | None = None,
    operands: Sequence['Constant'] = (),
    index: int = 0,
  ) -> None:
    self.shape = shape
    self._value = value
    self.eqn = eqn
    self.operands = operands
    self.index = index

  def value(self) -> Any:
    """Returns the array; ``None`` if it cannot be had."""
    if self._value is None and self.eqn is not None:
      try:
        operands = [x.value() for x in self.operands]
        if all(x is not None for x in operands):
          with jax.ensure_compile_time_eval():
            self._value = jaxprs.evaluate(self.eqn, operands)[self.index]
      except (Exception, RecursionError):  # whatever the primitive raises
        self._value = None
      self.eqn, self.operands = None, ()
    return self._value

  def array(self) -> np.ndarray | None:
    """Returns the value as a NumPy array; ``None`` if it cannot be had."""
    if np.prod(self.shape, dtype=float) > LIMIT:
      return None
    try:
      value = self.value()
      return None if value is None else np.asarray(value)
    except TypeError:  # keys of a random generator, for one
      return None


def constrain(axes: Sequence[axis_tree.Axis], constant: Constant) -> None:
  """Pins what a constant varies along, splitting axes where that is enough."""
  if all(axis_tree.pinned(axis) for axis in axes):
    return
  array = constant.array()
  if array is None:
    for axis in axes:
      axis_tree.pin(axis, 'a constant that is too large or cannot be evaluated')
    return
  for i, axis in enumerate(axes):
    if not axis_tree.pinned(axis):
      rows = np.moveaxis(array, i, 0).reshape(axis.size, -1)
      _pin_labels(axis, _labels(rows))


def _labels(rows: np.ndarray) -> np.ndarray:
  """Numbers the distinct rows; equal bytes are equal numbers."""
  seen: dict[bytes, int] = {}
  return np.asarray([seen.setdefault(r.tobytes(), len(seen)) for r in rows])


def _pin_labels(axis: axis_tree.Axis, labels: np.ndarray) -> None:
  """Pins an axis but for permutations among neighbours of one label."""
  if (labels == labels[0]).all():
    return
  pieces = axis_tree.segments(axis)
  if len(pieces) > 1:
    ends = np.cumsum([piece.size for piece in pieces])[:-1]
    for piece, part in zip(pieces, np.split(labels, ends)):
      _pin_labels(piece, part)
    return
  factors = axis_tree.factors(axis)
  if len(factors) > 1:
    table = labels.reshape([factor.size for factor in factors])
    for i, factor in enumerate(factors):
      rows = np.moveaxis(table, i, 0).reshape(factor.size, -1)
      _pin_labels(factor, _labels(rows))
    return
  runs = np.diff(np.flatnonzero(np.diff(labels, prepend=-1, append=-1)))
  if len(runs) < len(labels) and len(runs) <= axis_tree.MANY // 4:
    axis_tree.slices(axis, runs.tolist())
  elif len(runs) < len(labels) and (runs == runs[0]).all():
    halves = axis_tree.factorize(axis, len(runs))
    axis_tree.pin(axis if halves is None else halves[0], _WHY)
  else:
    axis_tree.pin(axis, _WHY)
