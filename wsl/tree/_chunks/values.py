"""The kinds of values in a program on flat chunks.

Let a leaf have N entries. A value of the traced program is

- uniform, if it does not depend on the position: coefficients, thresholds,
  keys. It stays an array.
- ``Spread``, if it is a uniform value broadcast over the leaf.
- ``Flat``, if its shape is ``[*lead, *S]`` with N = prod S, and the entries at
  a position depend on the program's inputs at this position only.
- ``Grid``, if it is an affine function of the index, as sums of ``iota`` are.
"""

from collections.abc import Sequence
import math
from typing import Any, NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

# A uniform value is computed again for each chunk: it must be small.
MOST_UNIFORM = 1 << 12


class NotFlatError(Exception):
  """An equation mixes positions of the leaf, or has no rule."""


class Flat(NamedTuple):
  """Values at n positions, ``[*lead, n]``; ``lead`` counts the leading axes."""

  array: Any
  lead: int


class Spread(NamedTuple):
  """A uniform value, broadcast: the operands of ``broadcast_in_dim``."""

  value: Any
  shape: tuple[int, ...]
  dims: tuple[int, ...]


class Grid(NamedTuple):
  """The integers ``offset + sum_a coefs[a] i_a`` at the indices of a shape."""

  shape: tuple[int, ...]
  coefs: tuple[int, ...]
  offset: Any
  dtype: np.dtype


class Window(NamedTuple):
  """Consecutive positions of a leaf.

  Attributes:
    size: N, the number of entries of the leaf.
    length: n, the number of positions.
    start: the first position, a traced uint32.
  """

  size: int
  length: int
  start: Any


def require(condition: bool) -> None:
  """Raises ``NotFlatError`` unless the condition holds."""
  if not condition:
    raise NotFlatError


def shape_of(var: Any) -> tuple[int, ...]:
  """Returns the shape of a variable of the traced program."""
  return tuple(var.aval.shape)


def bind(eqn: core.JaxprEqn, operands: Sequence[Any]) -> Any:
  """Applies the primitive of an equation to other operands."""
  return eqn.primitive.bind(*operands, **eqn.params)


def uniform(eqn: core.JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
  """Evaluates an equation of uniform values as it is."""
  require(all(math.prod(shape_of(v)) <= MOST_UNIFORM for v in eqn.outvars))
  results = bind(eqn, [whole(value) for value in values])
  return results if eqn.primitive.multiple_results else [results]


def whole(value: Any) -> Any:
  """Returns a spread value as an array of its full shape."""
  require(not isinstance(value, (Flat, Grid)))
  if not isinstance(value, Spread):
    return value
  require(math.prod(value.shape) <= MOST_UNIFORM)
  return jax.lax.broadcast_in_dim(value.value, value.shape, value.dims)


def leading(shape: tuple[int, ...], size: int) -> int | None:
  """Returns the number of axes before those of N entries; None if none are."""
  for lead in range(len(shape) + 1):
    if math.prod(shape[lead:]) == size:
      return lead
  return None


def to_flat(
  window: Window, value: Any, lead: int, shape: tuple[int, ...]
) -> Any:
  """Returns a value ``[*lead, *S]`` at the positions, ``[*lead, n]``."""
  if isinstance(value, Flat):
    require(value.lead == lead)
    return value.array
  require(math.prod(shape[lead:]) == window.size)
  if isinstance(value, Grid):
    return _at_positions(window, value, lead)
  if not isinstance(value, Spread):
    value = Spread(value, shape, tuple(range(len(shape))))
  # Beyond the leading axes, the axes of a spread value must have one entry.
  sizes = [1] * lead
  for axis, size in zip(value.dims, np.shape(value.value)):
    require(axis < lead or size == 1)
    if axis < lead:
      sizes[axis] = size
  column = jnp.reshape(value.value, (*sizes, 1))
  return jnp.broadcast_to(column, (*shape[:lead], window.length))


def _at_positions(window: Window, grid: Grid, lead: int) -> Any:
  """Returns the values of a grid at the positions, ``[*lead, n]``."""
  require(window.size < 2**31)
  number = lambda c: np.asarray(c).astype(grid.dtype)
  here = window.start + jax.lax.iota(np.uint32, window.length)
  sizes, coefs = grid.shape[lead:], grid.coefs[lead:]
  strides = [math.prod(sizes[a + 1 :]) for a in range(len(sizes))]
  axes = [axis for axis in zip(coefs, strides, sizes) if axis[2] > 1]
  multiples = {divmod(c, s) for c, s, _ in axes}
  shape = (*grid.shape[:lead], window.length)
  total = jnp.full(shape, jnp.asarray(grid.offset).astype(grid.dtype))
  if len(multiples) == 1 and not next(iter(multiples))[1]:
    # A multiple of the row-major index, whatever the shape.
    ((multiple, _),) = multiples
    total = total + here.astype(grid.dtype) * number(multiple)
  else:
    for c, s, n in axes:
      index = here // np.uint32(s) % np.uint32(n)
      total = total + index.astype(grid.dtype) * number(c)
  for axis in range(lead):
    step = jax.lax.broadcasted_iota(grid.dtype, shape, axis)
    total = total + step * number(grid.coefs[axis])
  return total


def iota(eqn: core.JaxprEqn) -> Any:
  """Returns the grid of an ``iota``."""
  dtype, shape = np.dtype(eqn.params['dtype']), eqn.params['shape']
  require(dtype.kind in 'iu')
  along = eqn.params['dimension']
  coefs = tuple(int(axis == along) for axis in range(len(shape)))
  return Grid(shape, coefs, np.zeros((), dtype), dtype)


def affine(eqn: core.JaxprEqn, values: Sequence[Any]) -> Grid | None:
  """Returns a sum of grids, or a multiple of one; None for other equations."""
  name = eqn.primitive.name
  if not any(isinstance(v, Grid) for v in values) or name not in ('add', 'mul'):
    return None
  grid, other = values if isinstance(values[0], Grid) else values[::-1]
  other = other.value if isinstance(other, Spread) else other
  if isinstance(other, Grid):
    coefs, offset = other.coefs, other.offset
  elif isinstance(other, Flat) or np.ndim(other):
    return None
  else:
    coefs, offset = (0,) * len(grid.coefs), other
  if name == 'mul' and (any(coefs) or isinstance(offset, jax.core.Tracer)):
    return None
  with np.errstate(over='ignore'):  # modulo the width, as in XLA
    if name == 'add':
      both = tuple(a + b for a, b in zip(grid.coefs, coefs))
      return grid._replace(coefs=both, offset=grid.offset + offset)
    scaled = tuple(a * int(offset) for a in grid.coefs)
    return grid._replace(coefs=scaled, offset=grid.offset * offset)
