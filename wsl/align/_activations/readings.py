"""Readings: activations on which the actions of a symmetry act.

An activation that a leaf reads moves with the inverse of the actions on the
leaf's axis; one that it writes moves as the axis does.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any, TypeAlias

import jax

from wsl import tree, types
from wsl.align import _blocks, _symmetry
from wsl.align._activations import (
  activation_sites,
  candidates,
  capture,
  leaf_products,
)
from wsl.align._activations import reading as reading_lib
from wsl.align._gauges import views

Sites: TypeAlias = Mapping[str, types.Array | Sequence[types.Array]]
Pair: TypeAlias = tuple[reading_lib.Reading, types.Array, types.Array]


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['values'],
  meta_fields=['reading'],
)
@dataclasses.dataclass(frozen=True)
class Read:
  """Activations ``[rows, *outer sizes, n]``, and how they move."""

  reading: reading_lib.Reading
  values: types.Array


def read(
  view: views.View,
  apply_fn: Callable[..., Any],
  params: types.Params,
  *inputs: Any,
) -> list[Read]:
  """Returns the activations that determine the groups and actions of a view.

  For every action there are arrays that tell it from the other ones of its
  factor: the last inputs of leaves, then the last outputs. Units on which no
  action acts are read at the sites of ``activation_sites.activations``.

  Args:
    view: the groups and actions to match.
    apply_fn: the function ``(params, *inputs)``.
    params: parameters.
    *inputs: the other arguments, arrays.
  """
  symmetry = view.symmetry
  found = activation_sites.analyse(symmetry, apply_fn, params, inputs)
  chosen = candidates.choose(candidates.all_of(view, found, params))
  # Heads are matched by the values of the maps inside them.
  acted = {
    factor.name
    for c in chosen
    for factor in c.reading.factors
    if not c.reading.frames_only
  }
  moved = candidates.moved_factors(symmetry)
  sites = {
    **activation_sites.choose(symmetry, found),
    **activation_sites.choose(symmetry, found, moved),
  }
  sites = {
    name: site
    for name, site in sites.items()
    if name not in acted and name in view.outer_of
  }
  wanted = {(site.path, site.operand) for site in sites.values()}
  wanted |= {c.product.key for c in chosen}
  seen = capture.observe(found.program, apply_fn, params, inputs, wanted)
  plain = [
    Read(
      reading_lib.of_group(symmetry, name),
      activation_sites.to_rows(seen[site.path, site.operand], site),
    )
    for name, site in sites.items()
  ]
  return plain + [
    Read(c.reading, _extract(seen[c.product.key], c, symmetry)) for c in chosen
  ]


def _extract(
  x: types.Array, c: candidates.Candidate, symmetry: _symmetry.Symmetry
) -> types.Array:
  """Extracts a reading ``[rows, *outer sizes, n]`` from its array."""
  product = c.product
  dims: list[leaf_products.Piece | None] = []
  shape: list[int] = []
  for size, pieces in zip(x.shape, product.dims):
    dims += pieces or [None]
    shape += [piece.size for piece in pieces] or [size]
  # Rows first, then the factors of the leaf's axes in their order.
  place = lambda i: (-1, 0) if dims[i] is None else dims[i][:2]  # type: ignore
  order = sorted(range(len(dims)), key=place)
  part = candidates.symmetry_of(symmetry, product, c.axes)
  sizes = [
    sum(_symmetry.width(s) for s in axis) for axis in part.plan(product.leaf)
  ]
  x = tree.wide(x).reshape(shape).transpose(order).reshape(-1, *sizes)
  count = _blocks.Part((_symmetry.Factor('rows', len(x)),))
  layout = ((count,), *part.layout(product.leaf))
  y, _ = _blocks.to_blocks(x, layout)[c.block]
  y = y.transpose(0, *(i + 1 for i in c.order))
  y = y.reshape(-1, *y.shape[c.rows + 1 :])
  return y[..., None] if c.reading.signs else y


def pair(fixed: Sequence[Read], moving: Sequence[Read]) -> list[Pair]:
  """Pairs the readings of both models."""
  return [(x.reading, x.values, y.values) for x, y in zip(fixed, moving)]


def captured_pairs(
  fixed: Sites, moving: Sites, symmetry: _symmetry.Symmetry
) -> list[Pair]:
  """Pairs the activations of both models at every site of every group."""
  result: list[Pair] = []
  for name, found in fixed.items():
    if name not in symmetry.factor or symmetry.factor[name].pinned:
      raise ValueError(
        f"activation_matching: capture returns '{name}', which is no group of "
        'the symmetry'
      )
    expected = symmetry.table_shape(name)
    reading = reading_lib.of_group(symmetry, name)
    for x, y in zip(_as_list(found), _as_list(moving[name])):
      if x.shape[1:] != expected:
        raise ValueError(
          f"activation_matching: the activations of '{name}' have shape "
          f'{x.shape}, expected [rows, *{expected}]'
        )
      result.append((reading, x, y))
  return result


def _as_list(found: types.Array | Sequence[types.Array]) -> list[types.Array]:
  """Returns the activations of all sites of a group as a list."""
  return [*found] if isinstance(found, list | tuple) else [found]  # type: ignore
