"""What is known while a function is read: values, their axes, and ties."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from wsl.align._find import axis_tree, known_constants

Axes: TypeAlias = tuple[axis_tree.Axis, ...]


class Value(NamedTuple):
  """What is known of an array.

  Attributes:
    axes: its axes.
    constant: its value, if it does not depend on parameters and inputs.
    dim: where there are pieces, the axis along which they follow.
    pieces: the axes of consecutive parts of the array, which differ in more
      than the axis ``dim``; ``()`` if ``axes`` says all.
    indexes: axes of which the entries are indices, as those of ``top_k``.
  """

  axes: Axes
  constant: known_constants.Constant | None = None
  dim: int = 0
  pieces: tuple[Axes, ...] = ()
  indexes: Axes = ()


class Tensor(NamedTuple):
  """Axes that occur together, those of scans around them included."""

  axes: Axes
  layers: Axes


class Facts:
  """Collects what the equations of a function say about its axes.

  Attributes:
    tensors: all combinations of axes that occurred.
    mixed: axes along which a tensor's indices were mixed up.
    constants: the constants that met something else.
    suspects: pairs of axes, indices of one of which are looked up in the
      other: permuting both together may change nothing.
    layers: the axes along which the scans around an equation run.
    path: where the equation that is read stands, call by call.
    products: the operands of products and convolutions, by their path.
  """

  def __init__(self) -> None:
    self.tensors: dict[tuple[int, ...], Tensor] = {}
    self.mixed: list[tuple[axis_tree.Axis, Tensor]] = []
    self.constants: dict[int, tuple[Axes, known_constants.Constant]] = {}
    self.suspects: list[tuple[axis_tree.Axis, axis_tree.Axis]] = []
    self.layers: Axes = ()
    self.path: tuple[int, ...] = ()
    self.products: dict[tuple[int, ...], list[Tensor]] = {}

  def record(self, axes: Axes) -> None:
    """Notes that axes occur together."""
    key = (*map(id, axes), 0, *map(id, self.layers))
    if key not in self.tensors:
      self.tensors[key] = Tensor(axes, self.layers)

  def index_dependent(self, axis: axis_tree.Axis, axes: Axes) -> None:
    """Notes that what comes at an index depends on other indices."""
    self.mixed.append((axis, Tensor(axes, self.layers)))

  def reduce(self, x: Axes, dims: Sequence[int]) -> None:
    """Notes that axes of x are summed over: the others lose sight of them.

    Without it, one that is summed over could seem to stay where another
    operand brings the same axis along.
    """
    kept = tuple(axis for i, axis in enumerate(x) if i not in dims)
    for i in dims:
      self.index_dependent(x[i], kept)

  def pin_moved(self, x: Axes, i: int, size: int, why: str) -> axis_tree.Axis:
    """Pins the i-th axis of x, and returns what it becomes, pinned too."""
    axis_tree.pin(x[i], why)
    self.index_dependent(x[i], x)
    reasons = [atom.pin_reason for atom in axis_tree.atoms(x[i])]
    return axis_tree.Axis(size, reasons[0] if reasons else why)

  def operand(self, value: Value) -> Axes:
    """Returns a value's axes, to be tied to those of others."""
    if value.pieces:
      merge(value)
    if value.constant is not None and value.axes:
      self.constants[id(value.axes)] = value.axes, value.constant
    return value.axes


def fresh(shape: Sequence[int], why: str = '') -> Axes:
  """Returns axes of which nothing is known yet."""
  return tuple(axis_tree.Axis(size, why) for size in shape)


def merge(value: Value) -> None:
  """Ties the pieces of a value, so that its axes say all."""
  for piece in value.pieces:
    for i, (x, y) in enumerate(zip(value.axes, piece)):
      if i != value.dim:
        axis_tree.tie(x, y)


def join(dim: int, pieces: Sequence[Axes]) -> Value:
  """Returns the value that has the given pieces.

  Its ``axes`` are right only once it is merged: they are those of the first
  piece but along ``dim``.
  """
  along = axis_tree.total([piece[dim] for piece in pieces])
  axes = (*pieces[0][:dim], along, *pieces[0][dim + 1 :])
  return Value(axes, None, dim, tuple(pieces))
