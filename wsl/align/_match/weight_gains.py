r"""Gains of pairing units: leaf blocks of two models, contracted.

The block of a leaf has one axis for each factor. For a group c the gain

.. math:: S[o, i, j] = \sum_{\text{blocks}} \sum_r A[o, i, r]\, B[o, j, r]

contracts all its axes but c and the outer factors o on which c depends. On a
CPU blocks are numpy arrays and never compiled for; elsewhere they stay on the
accelerator.
"""

import functools
import math
import re
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types

Names: TypeAlias = tuple[str, ...]
Tables: TypeAlias = dict[str, np.ndarray]  # as a permutation, on the host
_THIN = 64  # contractions shorter than this are joined into one product

_STATISTICS = re.compile(
  r'(^|/)batch_stats/'
  r'|(^|/)(running|moving)_(mean|var|variance|std)$'
  r'|(^|/)(mean|var)(/value)?$'
)


class Block(NamedTuple):
  """One block of one leaf in both models.

  Attributes:
    names: the factor of each axis.
    fixed: ``[*sizes]``, the block of the model that stays.
    moving: ``[*sizes]``, that of the other, in its present order.
  """

  names: Names
  fixed: Any
  moving: Any


def default_leaves(name: str, shape: tuple[int, ...]) -> bool:
  """Chooses all leaves but the running statistics of normalisation.

  Those are the leaves of a collection ``batch_stats`` and leaves called
  ``mean`` or ``var``, with or without ``running_`` or ``moving_`` before it.
  They say how inputs are scaled, not what a unit does.
  """
  del shape
  return not _STATISTICS.search(name)


def gains(
  blocks: list[Block], group: str, lead: Names, total: Any = None
) -> Any:
  """Returns the gains of a group, ``[*lead, n, n]``, added to a total.

  Where the group has several axes in a block, the others stay as they are:
  these are the derivatives of the agreement.
  """
  pairs = []
  for block in blocks:
    for position in _positions(block.names, group):
      labels = unique(block.names, position)
      shape = (labels, lead, (group,))
      pairs.append((matrix(block.fixed, *shape), matrix(block.moving, *shape)))
  thin = [pair for pair in pairs if pair[0].shape[-1] < _THIN]
  if len(thin) > 1:
    pairs = [pair for pair in pairs if pair[0].shape[-1] >= _THIN]
    xs, ys = zip(*thin)
    join = np.concatenate if on_host(xs[0]) else jnp.concatenate
    pairs.append((join(xs, axis=-1), join(ys, axis=-1)))
  for x, y in pairs:
    total = product(x, y, total)
  return total


def product(x: Any, y: Any, total: Any = None) -> Any:
  """Adds ``x y^T`` to a total, where they are."""
  if not on_host(x):
    return _product(x, y, total)
  result = np.matmul(_strided(x), np.swapaxes(_strided(y), -1, -2))
  if total is None:
    return result
  total += result
  return total


def matrix(x: Any, labels: Names, lead: Names, free: Names) -> Any:
  """Views a block as matrices ``[*lead, prod(free), rest]``."""
  rest = [label for label in labels if label not in (*lead, *free)]
  y = x.transpose([labels.index(label) for label in (*lead, *free, *rest)])
  sizes = y.shape[: len(lead) + len(free)]
  rows = math.prod(sizes[len(lead) :])
  return y.reshape(*sizes[: len(lead)], rows, -1)


def unique(names: Names, position: int) -> Names:
  """Renames a factor that occurs again at other positions."""
  return tuple(
    name if i == position or names.count(name) == 1 else f'{name}@{i}'
    for i, name in enumerate(names)
  )


def gather(
  x: Any, names: Names, tables: Tables, outers: dict[str, Names]
) -> Any:
  """Permutes a block by the tables of some groups, outer ones first."""
  for name, table in tables.items():
    for axis in _positions(names, name):
      if outers[name]:
        places = [*map(names.index, outers[name]), axis]
        x = _gather_within(x, places, table)
      else:
        x = x.take(table, axis=axis)
  return x


def moved(block: Block, tables: Tables, outers: dict[str, Names]) -> Block:
  """Returns a block with the moving model's part permuted."""
  moving = gather(block.moving, block.names, tables, outers)
  return block._replace(moving=moving)


def agreement(blocks: list[Block], lead: Names) -> np.ndarray:
  """Returns the inner product of both models, float64 ``[*lead]``."""
  total: Any = 0.0
  for block in blocks:
    rest = [i for i, name in enumerate(block.names) if name not in lead]
    order = [*map(block.names.index, lead), *rest]
    if on_host(block.fixed):
      part = (block.fixed * block.moving).transpose(order)
    else:
      part = np.asarray(
        _row_sums(block.fixed, block.moving, order=tuple(order), lead=len(lead))
      )
    axes = tuple(range(len(lead), part.ndim))
    total = total + part.sum(axes, dtype=np.float64)
  return np.asarray(total, np.float64)


def on_host(x: Any) -> bool:
  """Tells whether an array is numpy's, for which nothing is compiled."""
  return isinstance(x, np.ndarray)


def _positions(names: Names, name: str) -> list[int]:
  return [i for i, other in enumerate(names) if other == name]


def _gather_within(x: Any, places: list[int], table: np.ndarray) -> Any:
  """Permutes an axis by a table for each index of other axes."""
  ndim, first, depth = x.ndim, places[0], len(places)
  adjacent = places == list(range(first, first + depth))
  order = [*places, *(i for i in range(ndim) if i not in places)]
  y = x if adjacent else x.transpose(order)
  start = first if adjacent else 0
  shape = y.shape
  rows = np.arange(table.size // table.shape[-1], dtype=table.dtype)
  flat = (rows[:, None] * table.shape[-1]).repeat(table.shape[-1], 1)
  flat = (flat + table.reshape(flat.shape)).ravel()
  y = y.reshape(*shape[:start], -1, *shape[start + depth :])
  y = y.take(flat, axis=start).reshape(shape)
  return y if adjacent else y.transpose(np.argsort(order))


def _strided(x: np.ndarray) -> np.ndarray:
  """Copies what a matrix product could not read by rows or by columns."""
  if x.itemsize in x.strides[-2:]:
    return x
  return np.ascontiguousarray(x)


@jax.jit
def _product(x: types.Array, y: types.Array, total: Any) -> types.Array:
  result = jnp.matmul(x, jnp.swapaxes(y, -1, -2), precision='highest')
  return result if total is None else total + result


@functools.partial(jax.jit, static_argnames=('order', 'lead'))
def _row_sums(
  x: types.Array, y: types.Array, *, order: tuple[int, ...], lead: int
) -> types.Array:
  """Multiplies and sums the last axis; the host sums the rest in float64."""
  both = (x * y).transpose(order)
  return both.sum(-1) if both.ndim > lead else both
