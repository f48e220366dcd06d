"""Facts about the axes of a function, collected equation by equation."""

from collections.abc import Sequence
import itertools
from typing import NamedTuple, TypeAlias

from jax.extend import core

from wsl.align._find import axis_tree, known_constants, refinement
from wsl.align._find.generic import operands as operands_lib
from wsl.align._find.generic import traits as traits_lib

Axes: TypeAlias = tuple[axis_tree.Axis, ...]


class Index(NamedTuple):
  """The axis of which the entries of an array are indices.

  A permutation of the axis permutes the values of these entries.

  Attributes:
    axis: the axis.
    escapes: why the entries do not follow a permutation of the axis; ``''`` if
      they do. The axis is pinned if such entries are used.
  """

  axis: axis_tree.Axis
  escapes: str = ''


class Value(NamedTuple):
  """The abstract value of an array: its axes in place of its entries.

  Attributes:
    axes: its axes.
    constant: its value, if it does not depend on parameters and inputs.
    dim: the axis along which ``pieces`` are concatenated.
    pieces: the axes of each piece, if pieces differ in more than the axis
      ``dim``; otherwise ``()``, and ``axes`` describes the array.
    indexes: axes that the entries depend on by index, for certification.
    index_of: the axis that the entries are indices of, as of ``top_k``.
    components: the arrays that are concatenated along the last axis, if some
      of them are indices: together they index several axes.
    traits: properties that its entries have almost surely.
    number: identifies the array in ``Facts.steps``; 0 if it has no number.
  """

  axes: Axes
  constant: known_constants.Constant | None = None
  dim: int = 0
  pieces: tuple[Axes, ...] = ()
  indexes: Axes = ()
  index_of: Index | None = None
  components: tuple['Value', ...] = ()
  traits: traits_lib.Traits = traits_lib.Traits()
  number: int = 0


class Step(NamedTuple):
  """An equation that was interpreted, or a step of a loop.

  Attributes:
    name: of the primitive; or ``'loop tie'``, for arrays that are the same in a
      loop, ``'loop take'`` for the slice of a stack in one step of a scan, and
      ``'loop put'`` for the stack of slices.
    eqn: the equation.
    args: its operands.
    results: its results.
  """

  name: str
  eqn: core.JaxprEqn
  args: tuple[Value, ...]
  results: tuple[Value, ...]


Values: TypeAlias = Sequence[Value]


def is_empty(step: Step) -> bool:
  """Returns True if all results have no entries."""
  sizes = ([axis.size for axis in value.axes] for value in step.results)
  return bool(step.results) and all(0 in shape for shape in sizes)


class Tensor(NamedTuple):
  """Axes that occur in one array, and the axes of the scans around it."""

  axes: Axes
  layers: Axes


class Facts:
  """The constraints that the equations of a function put on its axes.

  Attributes:
    tensors: all combinations of axes that occur in an array.
    mixed: pairs of an axis and an array in which entries at one index of the
      axis depend on entries at other indices.
    constants: the constants that are combined with other values.
    suspects: pairs of axes, such that indices of the first are looked up in
      the second: a permutation of both may leave the function unchanged.
    layers: the axes along which the enclosing scans iterate.
    path: the position of the current equation, one number for each call.
    products: the operands of products and convolutions, by their path.
    steps: the equations in the order in which they were interpreted.
    leaves: the arrays of the parameters.
    fixed: inputs and outputs of the function.
  """

  def __init__(self) -> None:
    self.tensors: dict[tuple[int, ...], Tensor] = {}
    self.mixed: list[tuple[axis_tree.Axis, Tensor]] = []
    self.constants: dict[int, tuple[Axes, known_constants.Constant]] = {}
    self.suspects: list[tuple[axis_tree.Axis, axis_tree.Axis]] = []
    self.layers: Axes = ()
    self.path: tuple[int, ...] = ()
    self.products: dict[tuple[int, ...], list[Tensor]] = {}
    self.steps: list[Step] = []
    self.leaves: list[Value] = []
    self.fixed: list[Value] = []
    self._numbers = itertools.count(1)

  def number(self, values: Sequence[Value]) -> list[Value]:
    """Gives new numbers to arrays."""
    return [value._replace(number=next(self._numbers)) for value in values]

  def separate(self, values: Sequence[Value]) -> list[Value]:
    """Gives each use of a constant axes of its own.

    A constant does not change, so its uses share no permutation: an array of
    zeros that starts the caches of keys and of values may be permuted as keys
    in one and as values in the other. Each use is constrained by its entries.
    """
    return [
      value
      if value.constant is None or not value.axes
      else value._replace(
        axes=fresh([axis.size for axis in value.axes]),
        number=next(self._numbers),
      )
      for value in values
    ]

  def record_value(self, value: Value) -> None:
    """Records the axes of a value, of each of its pieces if they differ.

    An array of indices counts as its one-hot encoding, which has one axis more.
    """
    one_hot = () if value.index_of is None else (value.index_of.axis,)
    for axes in value.pieces or (value.axes,):
      self.record((*axes, *one_hot))

  def record(self, axes: Axes) -> None:
    """Records the axes of an array."""
    # Axes are compared by identity: ties that follow may still merge two keys,
    # which costs time but changes no result. Zero is the id of no object.
    key = (*map(id, axes), 0, *map(id, self.layers))
    if key not in self.tensors:
      self.tensors[key] = Tensor(axes, self.layers)

  def index_dependent(self, axis: axis_tree.Axis, axes: Axes) -> None:
    """Records that entries at an index of ``axis`` depend on other indices."""
    self.mixed.append((axis, Tensor(axes, self.layers)))

  def reduce(self, x: Axes, dims: Sequence[int]) -> None:
    """Records a reduction over ``dims``.

    No permutation of the remaining axes may depend on the index of a reduced
    axis: the sum over heads h of ``x[h, u]`` needs the same order of units u
    in every head. The result alone does not show this if another operand of
    the next equation has the reduced axis again.
    """
    kept = tuple(axis for i, axis in enumerate(x) if i not in dims)
    for i in dims:
      self.index_dependent(x[i], kept)

  def pin_moved(
    self, x: Axes, i: int, size: int, reason: str
  ) -> axis_tree.Axis:
    """Pins the i-th axis of x.

    Args:
      x: the axes of the operand.
      i: the axis along which entries change their positions.
      size: its size in the result.
      reason: why it is pinned.

    Returns:
      The axis of the result, pinned for the same reason.
    """
    axis_tree.pin(x[i], reason)
    self.index_dependent(x[i], x)
    reasons = [atom.pin_reason for atom in axis_tree.atoms(x[i])]
    return axis_tree.Axis(size, reasons[0] if reasons else reason)

  def operand(self, value: Value) -> Axes:
    """Returns the axes of an operand of which nothing else is known.

    Ties its pieces, registers constants, and pins the axis that its entries are
    indices of.
    """
    escape(value)
    if value.pieces:
      tie_pieces(value)
    if value.constant is not None and value.axes:
      self.constants[id(value.axes)] = value.axes, value.constant
    return value.axes


def fresh(shape: Sequence[int], reason: str = '') -> Axes:
  """Returns new atoms of given sizes, pinned if there is a reason."""
  return tuple(axis_tree.Axis(size, reason) for size in shape)


def as_operand(value: Value) -> operands_lib.Operand:
  """Returns the traits of a value with its shape and constant."""
  shape = tuple(axis.size for axis in value.axes)
  return operands_lib.Operand(value.traits, shape, value.constant)


def escape(value: Value) -> None:
  """Pins the axes whose indices are the entries of a value."""
  if value.index_of is not None:
    reason = value.index_of.escapes or 'its indices are used as numbers'
    axis_tree.pin(value.index_of.axis, reason)
  for component in value.components:
    escape(component)


def tie_pieces(value: Value) -> None:
  """Ties the pieces of a value, so that ``axes`` alone describes it."""
  for piece in value.pieces:
    for i, (x, y) in enumerate(zip(value.axes, piece)):
      if i != value.dim:
        refinement.tie(x, y)


def from_pieces(dim: int, pieces: Sequence[Axes]) -> Value:
  """Returns the concatenation of pieces along ``dim``.

  Its ``axes`` are those of the first piece, but along ``dim``. They describe
  the whole array after ``tie_pieces``.
  """
  along = axis_tree.total([piece[dim] for piece in pieces])
  axes = (*pieces[0][:dim], along, *pieces[0][dim + 1 :])
  return Value(axes, None, dim, tuple(pieces))
