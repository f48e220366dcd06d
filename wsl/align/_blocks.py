"""Blocks of a leaf: one segment of each axis, one dimension for each factor.

An axis is a sum of parts, and a part a product of factors, or of factors and a
sum of further parts. Its segments are the products along the branches of this
tree: queries and keys inside of heads, ``h * (q + k)``, have the segments ``h *
q`` and ``h * k``, whose entries alternate.
"""

from collections.abc import Iterable, Iterator, Sequence
import math
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from wsl import types

Factors: TypeAlias = tuple[Any, ...]  # each has a name and a size


class Part(NamedTuple):
  """A product of factors, and of the sum of parts if there are any.

  Attributes:
    factors: major to minor.
    parts: the segments inside of the last factor; ``()`` for a segment.
  """

  factors: Factors
  parts: tuple['Part', ...] = ()

  @property
  def size(self) -> int:
    """The number of entries."""
    inner = sum(part.size for part in self.parts) if self.parts else 1
    return math.prod(factor.size for factor in self.factors) * inner


Layout: TypeAlias = tuple[tuple[Part, ...], ...]  # the parts of each axis
Span: TypeAlias = tuple[int, int, int]  # first segment, number, shared factors


def nest(
  segments: Sequence[Factors], spans: Sequence[Span]
) -> tuple[Part, ...]:
  """Writes segments as parts.

  Args:
    segments: the factors of each segment.
    spans: runs of segments whose first factors are shared; runs may be nested.
  """

  def parts(start: int, stop: int, done: int) -> tuple[Part, ...]:
    out = []
    while start < stop:
      here = [s for s in spans if s[0] == start and s[2] > done]
      if here:
        _, count, shared = min(here, key=lambda s: s[2])
        inner = parts(start, start + count, shared)
        out.append(Part(segments[start][done:shared], inner))
        start += count
      else:
        out.append(Part(segments[start][done:]))
        start += 1
    return tuple(out)

  return parts(0, len(segments), 0)


def flatten(
  parts: Iterable[Part], shared: Factors = ()
) -> tuple[list[Factors], list[Span]]:
  """Returns the segments of an axis and its spans; the inverse of ``nest``."""
  segments: list[Factors] = []
  spans: list[Span] = []
  for part in parts:
    factors, first = shared + part.factors, len(segments)
    if not part.parts:
      segments.append(factors)
      continue
    inner, inner_spans = flatten(part.parts, factors)
    segments += inner
    spans.append((first, len(inner), len(factors)))
    spans += [(first + i, count, n) for i, count, n in inner_spans]
  return segments, spans


def to_blocks(x: Any, layout: Layout) -> list[tuple[Any, Factors]]:
  """Cuts a leaf into blocks ``[*sizes of factors]``.

  Args:
    x: the leaf. Blocks of a NumPy array are views of it, if possible.
    layout: its axes.

  Returns:
    Each block with its factors; the last axis varies fastest.
  """
  blocks: list[tuple[Any, Factors]] = [(x, ())]
  for parts in layout:
    blocks = [
      (z, factors + own)
      for y, factors in blocks
      for z, own in _cut(y, len(factors), parts)
    ]
  return blocks


def from_blocks(
  blocks: Iterable[Any], layout: Layout, xp: Any = jnp
) -> types.Array:
  """Concatenates the blocks of a leaf; the inverse of ``to_blocks``.

  Args:
    blocks: the blocks.
    layout: the axes of the leaf.
    xp: ``numpy`` on the host, else ``jax.numpy``.
  """
  blocks = list(blocks)
  for after, parts in enumerate(reversed(layout)):
    count = len(flatten(parts)[0])
    blocks = [
      _join(iter(blocks[i : i + count]), parts, after, xp)
      for i in range(0, len(blocks), count)
    ]
  return blocks[0]


def spread(
  table: Any, places: list[int], ndim: int, xp: Any = jnp
) -> types.Array:
  """Moves the axes of a table to ``places`` among ``ndim`` axes."""
  table = xp.transpose(table, np.argsort(places).tolist())
  return xp.expand_dims(table, [i for i in range(ndim) if i not in places])


def _cut(
  x: Any, at: int, parts: Sequence[Part]
) -> Iterator[tuple[Any, Factors]]:
  """Cuts one dimension into segments, each with a dimension for each factor."""
  start = 0
  for part in parts:
    stop = start + part.size
    y = x if len(parts) == 1 else x[(slice(None),) * at + (slice(start, stop),)]
    sizes = [factor.size for factor in part.factors]
    inner = [sum(p.size for p in part.parts)] if part.parts else []
    if len(sizes) + len(inner) != 1:
      y = y.reshape((*y.shape[:at], *sizes, *inner, *y.shape[at + 1 :]))
    if part.parts:
      for z, own in _cut(y, at + len(sizes), part.parts):
        yield z, part.factors + own
    else:
      yield y, part.factors
    start = stop


def _join(
  blocks: Iterator[Any], parts: Sequence[Part], after: int, xp: Any
) -> Any:
  """Joins blocks along one dimension, ``after`` dimensions from the last."""
  joined = []
  for part in parts:
    own = len(part.factors)
    if part.parts:
      y, own = _join(blocks, part.parts, after, xp), own + 1
    else:
      y = next(blocks)
    at = y.ndim - after - own
    if own != 1:
      size = math.prod(y.shape[at : at + own])
      y = y.reshape((*y.shape[:at], size, *y.shape[at + own :]))
    joined.append(y)
  return joined[0] if len(joined) == 1 else xp.concatenate(joined, at)
