"""Constants of a traced function, evaluated only if an axis depends on them.

Rotary tables, causal masks and ALiBi slopes break the symmetry of each axis
along which they vary. Along any other axis they leave it intact.
"""

from collections.abc import Sequence
import itertools
from typing import Any

import jax
from jax.extend import core
import numpy as np

from wsl import jaxprs
from wsl.align._find import axis_tree, refinement

LIMIT = 1 << 22  # entries; larger constants are not evaluated
_UNKNOWN = 'a constant that is too large or cannot be evaluated'
_REASON = 'a constant that varies along it'


class Constant:
  """A value that does not depend on parameters and inputs, evaluated lazily.

  Attributes:
    shape: its shape.
    eqn: the equation that computes it; ``None`` if its value is known.
    operands: the operands of that equation.
    index: which of the equation's results it is.
  """

  __slots__ = (
    '_labels',
    '_pairs',
    '_value',
    'eqn',
    'index',
    'operands',
    'shape',
  )

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
    self._labels: dict[int, np.ndarray] = {}
    self._pairs: list[tuple[int, int]] | None = None
    self._value = value
    self.eqn = eqn
    self.operands = operands
    self.index = index

  def value(self) -> Any:
    """Returns the array; ``None`` if it cannot be computed."""
    if self._value is None and self.eqn is not None:
      try:
        operands = [x.value() for x in self.operands]
        if all(x is not None for x in operands):
          with jax.core.eval_context():
            self._value = jaxprs.evaluate(self.eqn, operands)[self.index]
      except (Exception, RecursionError):  # whatever the primitive raises
        self._value = None
      self.eqn, self.operands = None, ()
    return self._value

  def array(self) -> np.ndarray | None:
    """Returns the value as a NumPy array; ``None`` if that is impossible."""
    if np.prod(self.shape, dtype=float) > LIMIT:
      return None
    try:
      value = self.value()
      return None if value is None else np.asarray(value)
    except TypeError:  # such as typed random keys
      return None

  def labels(self, i: int) -> np.ndarray | None:
    """Labels the slices along an axis; equal slices have equal labels."""
    if i not in self._labels:
      array = self.array()
      if array is None:
        return None
      rows = np.moveaxis(array, i, 0).reshape(self.shape[i], -1)
      self._labels[i] = _labels(rows)
    return self._labels[i]

  def diagonal(self) -> list[tuple[int, int]]:
    r"""Returns pairs of axes along which it is :math:`a I + b 1 1^T`.

    These are the matrices that commute with all permutations, and a and b may
    depend on the other indices. Axes along which it does not vary are in no
    pair.
    """
    if self._pairs is None:
      self._pairs = _diagonal(self)
    return self._pairs


def _diagonal(constant: Constant) -> list[tuple[int, int]]:
  """Finds the pairs of axes of ``Constant.diagonal``; none has two partners."""
  shape = constant.shape
  found: list[tuple[int, int]] = []
  left = [i for i, n in enumerate(shape) if n > 1]
  if not any(shape.count(shape[i]) > 1 for i in left):
    return []
  array = constant.array()
  if array is None:
    return []
  for i, j in itertools.combinations(left, 2):
    if shape[i] != shape[j] or {i, j} & {k for pair in found for k in pair}:
      continue
    rows = np.moveaxis(array, (i, j), (-2, -1))
    off, on = rows[..., :1, 1:2], rows[..., :1, :1]
    wanted = np.where(np.eye(shape[i], dtype=bool), on, off)
    # Bytes differ between zeros of both signs, which division distinguishes.
    if wanted.tobytes() == rows.tobytes() and (off != on).any():
      found.append((i, j))
  return found


def array_of(constant: Constant | None) -> np.ndarray | None:
  """Returns the value of a constant; ``None`` if it is none or unknown."""
  return None if constant is None else constant.array()


def is_zero(constant: Constant | None) -> bool:
  """Returns True for a constant whose entries are all zero."""
  array = array_of(constant)
  return array is not None and array.dtype.kind in 'biufc' and not array.any()


def identities(constant: Constant | None) -> list[tuple[int, int]]:
  """Returns the pairs of axes along which a constant is a diagonal matrix."""
  pairs = [] if constant is None else constant.diagonal()
  array = array_of(constant) if pairs else None
  for i, j in pairs:
    if array is None or np.moveaxis(array, (i, j), (0, 1))[0, 1].any():
      return []
  return pairs


def constrain(axes: Sequence[axis_tree.Axis], constant: Constant) -> bool:
  """Pins the axes along which a constant varies.

  Index i of an axis may be exchanged with j if the constant's slices at i and
  j are equal. Slices are labelled, equal slices alike; an axis is refined so
  that its free atoms are runs, or factors, of equal labels. Two axes along
  which it is a multiple of the identity, up to a number, may be permuted alike:
  they are tied.

  Returns:
    Whether axes were tied.
  """
  if all(axis_tree.pinned(axis) for axis in axes):
    return False
  tied = constant.diagonal()
  for i, j in tied:
    refinement.tie(axes[i], axes[j])
  both = {i for pair in tied for i in pair}
  for i, axis in enumerate(axes):
    if i not in both and not axis_tree.pinned(axis):
      labels = constant.labels(i)
      if labels is None:
        axis_tree.pin(axis, _UNKNOWN)
      else:
        _pin_labels(axis, labels)
  return bool(tied)


def _labels(rows: np.ndarray) -> np.ndarray:
  """Labels rows ``[n, m]`` with integers ``[n]``; equal bytes, equal labels."""
  seen: dict[bytes, int] = {}
  return np.asarray([seen.setdefault(r.tobytes(), len(seen)) for r in rows])


def _pin_labels(axis: axis_tree.Axis, labels: np.ndarray) -> None:
  """Restricts an axis to permutations inside runs of equal labels."""
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
  # The axis is an atom. Few runs of equal labels become segments; runs of one
  # length become the minor factor of a product; otherwise the atom is pinned.
  runs = np.diff(np.flatnonzero(np.diff(labels, prepend=-1, append=-1)))
  if len(runs) < len(labels) and len(runs) <= axis_tree.MANY // 4:
    refinement.slices(axis, runs.tolist())
  elif len(runs) < len(labels) and (runs == runs[0]).all():
    halves = refinement.factorize(axis, len(runs))
    axis_tree.pin(axis if halves is None else halves[0], _REASON)
  else:
    axis_tree.pin(axis, _REASON)
