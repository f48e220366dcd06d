"""Factors of the difference between two blocks."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.surgery._program import blocks as blocks_lib


def factors(
  rank: int,
  block: blocks_lib.Block,
  shared: blocks_lib.Block,
  matrices: tree.Matrices | None,
) -> blocks_lib.Block:
  """Returns factors of the difference of a block to the shared weights."""
  named = {blocks_lib.name(place): leaf for place, leaf in block.items()}
  try:
    views: Mapping[str, Any] = tree.views(named, matrices, otherwise='mean')
  except ValueError as error:
    raise ValueError(f'program: residual: {error}') from None
  found: blocks_lib.Block = {}
  for place, leaf in block.items():
    view = views[blocks_lib.name(place)]
    if view is None or not view.is_matrix or not tree.is_float(leaf):
      continue
    _, m, n = view.sizes(leaf.shape)
    both = tree.apply_kernel(
      _factorise,
      leaf,
      shared[place],
      view=tree.Static(view),
      rank=tree.Static(min(rank, m, n)),
    )
    a, b = (tree.apply_kernel(_pick, both, part=part) for part in ('a', 'b'))
    shape = tuple(leaf.shape)
    found[place] = deltas.Factors(a, b, 1.0, shape, view)
  return found


def _factorise(
  own: types.Array, shared: types.Array, *, view: tree.Matrix, rank: int
) -> dict[str, types.Array]:
  """Returns A ``[G, r, in]`` and B ``[G, out, r]`` of a difference."""
  own, shared = tree.widen(own, shared)
  # The view has inputs in rows: x = (B A)^T = U S V^T, so that A = U^T and
  # B = V S.
  x = view.split(own - shared)
  u, s, vt = tree.triplets(tree.leading(x, rank), x.shape)
  a, b = jnp.matrix_transpose(u), jnp.matrix_transpose(vt) * s[..., None, :]
  if view.batch or view.groups > 1:
    return {'a': a, 'b': b}
  return {'a': a[0], 'b': b[0]}


def _pick(both: dict[str, types.Array], *, part: str) -> types.Array:
  """Returns one of two factors."""
  return both[part]


def check_alike(
  i: int, one: Mapping[Any, Any], other: Mapping[Any, Any]
) -> None:
  """Checks that two blocks have the same leaves of the same shapes."""
  for place in {**one, **other}:
    shapes = [
      tuple(block[place].shape) if place in block else 'absent'
      for block in (one, other)
    ]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f"program: layer {i}: leaf '{blocks_lib.name(place)}' is {shapes[0]} "
        f'in one of its blocks and {shapes[1]} in another: they must be alike'
      )
