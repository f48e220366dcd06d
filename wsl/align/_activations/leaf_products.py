"""Products of a leaf and a value: the activations that a leaf reads or writes.

A product contracts axes of a leaf with those of its input, and keeps the other
axes of the leaf in its output. So the units along these axes of the input and
output are those of the leaf, and move with them.
"""

from collections.abc import Mapping, Sequence
import itertools
import math
from typing import Any, NamedTuple, TypeAlias

from jax.extend import core

from wsl import jaxprs
from wsl.align._activations import capture


class Piece(NamedTuple):
  """A factor of a leaf's axis: the axis, and the position and size in it."""

  axis: int
  position: int
  size: int


Dims: TypeAlias = tuple[tuple[Piece, ...], ...]


class Mark(NamedTuple):
  """The leaf that an array rearranges, or its dependence on the inputs.

  Attributes:
    depends: whether it depends on the inputs.
    leaf: the leaf of which it is a rearrangement; ``''`` if it is none.
    dims: for each dimension the factors of the leaf's axes, major to minor.
    layers: the same for the steps of the scans around it, outermost first.
  """

  depends: bool = False
  leaf: str = ''
  dims: Dims = ()
  layers: Dims = ()


class LeafProduct(NamedTuple):
  """An input or output of a product with a leaf.

  Attributes:
    key: the equation and its operand, or the complement ``~0`` of its result.
    leaf: the leaf.
    inverse: whether the array is contracted with the leaf, so that it moves
      with the inverse of the actions on the leaf.
    dims: for each dimension of the array, those of scans around it first, the
      factors of the leaf's axes; none where they are rows.
    shared: the axes of the leaf that are batch axes of the product: the actions
      on them are not known from the leaf alone.
    operand: the index of the operand that is no leaf.
    rows: its dimensions along which the leaf has no axis.
  """

  key: capture.Key
  leaf: str
  inverse: bool
  dims: Dims
  shared: frozenset[int]
  operand: int
  rows: tuple[int, ...]


def find(
  program: core.ClosedJaxpr, shapes: Mapping[str, Sequence[int]]
) -> list[LeafProduct]:
  """Lists the inputs and outputs of products of a leaf, in order.

  Args:
    program: the traced function; its first arguments are the leaves.
    shapes: the shapes of the leaves by name, in their order.
  """
  found: list[LeafProduct] = []

  def visit(
    path: capture.Path, eqn: core.JaxprEqn, marks: list[Mark]
  ) -> list[Mark]:
    name, depends = eqn.primitive.name, any(m.depends for m in marks)
    if name == 'scan':
      # A dependent operand reaches the others through the carry.
      inner = _enter_scan(eqn, marks, depends)
      capture.walk(eqn.params['jaxpr'], inner, visit, path, lift=_constant)
    if name in jaxprs.PRODUCTS:
      for side in (0, 1):
        leaf, other = marks[side], marks[1 - side]
        if leaf.leaf and other.depends and not leaf.depends:
          found.extend(_products(path, eqn, side, leaf))
    moved = _rearranged(eqn, marks) if marks and marks[0].leaf else None
    if moved is not None:
      return [moved]
    return [Mark(depends)] * len(eqn.outvars)

  count = len(program.jaxpr.invars)
  given = [
    Mark(False, name, tuple((Piece(i, 0, n),) for i, n in enumerate(shape)))
    for name, shape in shapes.items()
  ]
  given += [Mark(True)] * (count - len(given))
  capture.walk(program, given, visit, lift=_constant)
  return found


def _constant(value: Any) -> Mark:
  """Returns the mark of a literal or constant."""
  del value
  return Mark()


def _enter_scan(
  eqn: core.JaxprEqn, marks: list[Mark], depends: bool
) -> list[Mark]:
  """Returns the marks in the steps of a scan: slices of stacked leaves."""
  consts, carry, xs = jaxprs.split_scan(eqn, marks)
  enter = lambda m, layer, dims: Mark(
    depends and not m.leaf, m.leaf, dims, (*m.layers, layer)
  )
  return [
    *(enter(m, (), m.dims) for m in consts),
    *(Mark(depends) for _ in carry),
    *(enter(m, m.dims[0] if m.dims else (), m.dims[1:]) for m in xs),
  ]


def _products(
  path: capture.Path, eqn: core.JaxprEqn, side: int, leaf: Mark
) -> list[LeafProduct]:
  """Returns the input and the output of one product."""
  p = eqn.params
  shapes = [jaxprs.shape_of(v) for v in (*eqn.invars[:2], eqn.outvars[0])]
  # From a dimension of the input, or of the output, to one of the leaf.
  read: dict[int, int] = {}
  batch: dict[int, int] = {}
  if eqn.primitive.name == 'dot_general':
    contracted, batched = p['dimension_numbers']
    read = dict(zip(contracted[1 - side], contracted[side]))
    batch = dict(zip(batched[1 - side], batched[side]))
    used = [{*c, *b} for c, b in zip(contracted, batched)]
    free = [
      [i for i in range(len(shapes[k])) if i not in used[k]] for k in (0, 1)
    ]
    # The output has batch dimensions, the free ones of the first operand, and
    # those of the second.
    written = dict(enumerate(batched[side]))
    start = len(batched[0]) + side * len(free[0])
    written |= {start + i: dim for i, dim in enumerate(free[side])}
  else:
    spec = p['dimension_numbers']
    if side == 0 or p['feature_group_count'] * p['batch_group_count'] != 1:
      return []
    read = {spec.lhs_spec[1]: spec.rhs_spec[1]}
    written = {spec.out_spec[1]: spec.rhs_spec[0]}
  shared = frozenset(x.axis for i in batch.values() for x in leaf.dims[i])
  source, inputs = 1 - side, read | batch
  rows = tuple(i for i in range(len(shapes[source])) if i not in inputs)
  found = []
  for array, shape, where in (
    (source, shapes[source], inputs),
    (~0, shapes[2], written),
  ):
    own = (leaf.dims[where[i]] if i in where else () for i in range(len(shape)))
    dims = (*leaf.layers, *own)
    key, inverse = (path, array), array >= 0
    found.append(
      LeafProduct(key, leaf.leaf, inverse, dims, shared, source, rows)
    )
  return found


def _rearranged(eqn: core.JaxprEqn, marks: list[Mark]) -> Mark | None:
  """Returns the mark of a leaf after a cast, transposition or reshape."""
  name, mark = eqn.primitive.name, marks[0]
  if name in jaxprs.CASTS:
    return mark
  if name == 'transpose':
    turned = tuple(mark.dims[i] for i in eqn.params['permutation'])
    return mark._replace(dims=turned)
  if name in ('reshape', 'squeeze', 'expand_dims'):
    dims = _reshaped(mark.dims, jaxprs.shape_of(eqn.outvars[0]))
    return None if dims is None else mark._replace(dims=dims)
  return None


def _reshaped(dims: Dims, shape: Sequence[int]) -> Dims | None:
  """Divides the factors of a leaf's axes among the dimensions of a reshape.

  A whole axis may be split once; None if it is split otherwise.
  """
  pieces = [x for x in itertools.chain(*dims) if x.size > 1]
  found: list[tuple[Piece, ...]] = []
  for size in shape:
    mine: list[Piece] = []
    while math.prod(x.size for x in mine) < size:
      left = size // math.prod(x.size for x in mine)
      first = pieces.pop(0)
      if first.size > left:
        # Split off the major part; the rest belongs to the next dimensions.
        if first.size % left:
          return None
        rest = Piece(first.axis, first.position + 1, first.size // left)
        first = first._replace(size=left)
        if any(x.axis == first.axis for x in pieces):
          return None
        pieces.insert(0, rest)
      mine.append(first)
    if math.prod(x.size for x in mine) != size:
      return None
    found.append(tuple(mine))
  return tuple(found)
