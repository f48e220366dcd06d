"""The view of a leaf as a stack of matrices."""

from collections.abc import Sequence
import dataclasses
import math

import jax.numpy as jnp

from wsl import types


@dataclasses.dataclass(frozen=True)
class Matrix:
  """Which axes of a leaf are batch, rows (inputs) and columns (outputs).

  Every axis of the leaf is in exactly one of the three. Each entry of the batch
  axes is one matrix ``[m, n]``: a layer of a scan, an expert. The row axes are
  flattened to m and the column axes to n, each in the given order. A view
  without rows or without columns is a stack of vectors (biases and scales of
  scanned layers): methods on matrices average it.

  Attributes:
    rows: the axes that are multiplied with the input: ``(0,)`` for a Flax
      kernel ``[in, out]``, ``(1, 2, 3)`` for a convolution of PyTorch
      ``[out, in, h, w]``.
    columns: the axes of the output.
    batch: the axes of layers or experts.
    groups: the number of equal consecutive blocks into which the flattened
      columns are split, each a matrix of its own: the feature groups of a
      convolution, or 3 for fused queries, keys and values.

  Raises:
    ValueError: if an axis occurs twice, or ``groups`` is less than 1.

  Example:
    >>> import jax.numpy as jnp
    >>> query = Matrix(batch=(0,), rows=(1,), columns=(2, 3))
    >>> query.split(jnp.ones((12, 64, 4, 16))).shape  # layers, d, heads, k
    (12, 64, 64)
  """

  rows: tuple[int, ...] = ()
  columns: tuple[int, ...] = ()
  batch: tuple[int, ...] = ()
  groups: int = 1

  def __post_init__(self) -> None:
    for name in ('rows', 'columns', 'batch'):
      value = getattr(self, name)
      axes = (value,) if isinstance(value, int) else tuple(value)
      object.__setattr__(self, name, axes)
    every = [*self.batch, *self.rows, *self.columns]
    if len(set(every)) < len(every):
      raise ValueError(f'{self}: an axis occurs twice: name each once')
    if self.groups < 1:
      raise ValueError(f'{self}: groups={self.groups}: expected at least 1')

  @property
  def is_matrix(self) -> bool:
    """Returns False for a stack of vectors: no rows or no columns."""
    return bool(self.rows and self.columns)

  def fit(self, shape: Sequence[int]) -> 'Matrix':
    """Returns the view for a leaf of that shape, with axes counted from 0.

    Args:
      shape: the shape of the leaf, without the axis of models.

    Raises:
      ValueError: if the view does not name every axis of the leaf once, or the
        groups do not divide the columns.

    Example:
      >>> Matrix(rows=(-2,), columns=(-1,), batch=(0,)).fit((12, 3, 4)).rows
      (1,)
    """
    rank = len(shape)
    turn = lambda axes: tuple(a + rank if a < 0 else a for a in axes)
    parts = [turn(axes) for axes in (self.rows, self.columns, self.batch)]
    if sorted(sum(parts, ())) != list(range(rank)):
      raise ValueError(f'{self} has to name each of the {rank} axes once')
    rows, columns, batch = parts
    width = math.prod(shape[a] for a in columns)
    if width % self.groups:
      raise ValueError(f'{self}: {width} columns do not divide into groups')
    return Matrix(rows, columns, batch, self.groups)

  def split(self, x: types.Array, *, models: int = 0) -> types.Array:
    """Lays a leaf out as matrices ``[..., B, m, n]``.

    Args:
      x: the leaf, ``[...]``, after ``models`` leading axes that are kept.
      models: the number of leading axes that are no axes of the leaf.

    Returns:
      Matrices; B counts the entries of the batch axes and of the groups.

    Raises:
      ValueError: as ``fit``.

    Example:
      >>> import jax.numpy as jnp
      >>> Matrix(rows=(1, 2), columns=(0,)).split(jnp.ones((8, 3, 5))).shape
      (1, 15, 8)
    """
    view, lead = self.fit(x.shape[models:]), x.shape[:models]
    b, m, n = view.sizes(x.shape[models:])
    order = (*view.batch, *view.rows, *view.columns)
    x = x.transpose(*range(models), *(models + a for a in order))
    x = x.reshape(*lead, b // view.groups, m, view.groups, n)
    return jnp.moveaxis(x, -2, -3).reshape(*lead, b, m, n)

  def join(self, matrices: types.Array, shape: Sequence[int]) -> types.Array:
    """Inverts ``split``: returns the leaf of matrices ``[B, m, n]``.

    Args:
      matrices: ``[B, m, n]``.
      shape: the shape of the leaf.

    Raises:
      ValueError: as ``fit``.

    Example:
      >>> import jax.numpy as jnp
      >>> view, x = Matrix(rows=(1,), columns=(0, 2)), jnp.ones((2, 3, 4))
      >>> view.join(view.split(x), x.shape).shape
      (2, 3, 4)
    """
    view = self.fit(shape)
    b, m, n = view.sizes(shape)
    order = (*view.batch, *view.rows, *view.columns)
    x = matrices.reshape(b // view.groups, view.groups, m, n)
    x = jnp.moveaxis(x, 1, 2).reshape([shape[a] for a in order])
    return x.transpose([order.index(a) for a in range(len(order))])

  def sizes(self, shape: Sequence[int]) -> tuple[int, int, int]:
    """Returns B, m and n for a leaf of that shape.

    Example:
      >>> Matrix(rows=(1,), columns=(0,), groups=3).sizes((12, 4))
      (3, 4, 4)
    """
    size = lambda axes: math.prod(shape[a] for a in axes)
    columns = size(self.columns) // self.groups
    return size(self.batch) * self.groups, size(self.rows), columns
