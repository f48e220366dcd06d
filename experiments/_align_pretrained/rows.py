"""The rows of a pair: as it is, matched over more and more gauges, controls."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from experiments._align_pretrained import settings
from experiments._shared import gauge_frames
from wsl import align, landscape, tree, types

CONTROLS = ('random', 'rematched', 'planted', 'noise')


class Row(NamedTuple):
  """Two networks that are joined by a line.

  Attributes:
    name: ``'naive'``, the kinds of gauges that were added, or a control.
    first: at one end.
    second: before it is matched.
    moved: at the other end.
  """

  name: str
  first: types.Params
  second: types.Params
  moved: types.Params


def find(setting: settings.Setting, pair: settings.Pair) -> list[Row]:
  """Matches the second network of a pair to the first one."""
  config = setting.config
  keys = jax.random.split(jax.random.key(config.seed), 4)
  ladder: dict[str, tuple[str, ...]] = {'permutation': ('permutation',)}
  ladder |= gauge_frames.cumulative(config.ladder)
  rows = [Row('naive', pair.first, pair.second, pair.second)]
  for name, kinds in ladder.items():
    symmetry, (a, b) = gauge_frames.bring(
      setting.apply_fn, pair, setting.inputs[:1], kinds=kinds
    )
    rows.append(Row(name, a, b, matched(a, b, symmetry, kinds, keys[0])))

  # Controls, over the gauges of the last row.
  def at_random(params: types.Params, key: types.PRNGKey) -> types.Params:
    element = align.random(symmetry, key, gauges=kinds)
    return align.permute(params, element, symmetry=symmetry)

  def planted(name: str, source: types.Params) -> Row:
    copy = gauge_frames.balanced(
      at_random(source, keys[2]), symmetry=symmetry, kinds=kinds
    )
    return Row(name, a, copy, matched(a, copy, symmetry, kinds, keys[0]))

  rows.append(Row('random', a, b, at_random(b, keys[1])))
  rows.append(planted('rematched', b))
  rows.append(planted('planted', a))
  rows.append(planted('noise', noise(a, keys[3], config.noise)))
  return rows


def matched(
  a: types.Params,
  b: types.Params,
  symmetry: align.Symmetry,
  kinds: Sequence[str],
  key: types.PRNGKey,
) -> types.Params:
  """Returns b, matched to a by its weights."""
  element = align.weight_matching(
    a, b, symmetry=symmetry, key=key, gauges=kinds
  )
  return align.permute(b, element, symmetry=symmetry)


def noise(
  params: types.Params, key: types.PRNGKey, size: float
) -> types.Params:
  """Adds noise to the matrices of a network, relative to their norms."""

  def one(name: str, x: types.Array) -> types.Array:
    if x.ndim < 2:
      return x
    drawn = jax.random.normal(tree.name_key(key, name), x.shape, x.dtype)
    return x + size * float(tree.norm(x) / tree.norm(drawn)) * drawn

  return tree.map_named(one, params)


def measure(setting: settings.Setting, row: Row) -> dict[str, Any]:
  """Measures the distance of both ends, and the line between them."""
  line = setting.line(row.first, row.moved)
  weights = lambda name, shape: 'batch_stats' not in name
  removed = landscape.l2_reduction(
    row.first, row.second, row.moved, leaves=weights
  )
  return {
    'apart': gauge_frames.apart(row.first, row.moved),
    'removed': float(removed),
    'line': line,
  }
