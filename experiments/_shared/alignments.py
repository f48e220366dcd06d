"""Titles and colours of the methods that align networks."""

from typing import Any

TITLES = {
  'weight_matching': 'weight matching',
  'activation_matching': 'activation matching',
  'straight_through': 'straight-through',
  'match_many': 'match many',
  'sinkhorn': 'Sinkhorn',
}
COLOURS = {
  'weight_matching': '#1f6fb4',
  'activation_matching': '#e8871e',
  'straight_through': '#c2559d',
  'match_many': '#17a2a2',
  'sinkhorn': '#6a3d9a',
}

# Rows of a ladder of gauges: each matches the kinds of the rows before, too.
ROWS = {
  'naive': 'as it is',
  'frame': 'canonical form',
  'permutation': 'permutations',
  'learned_one': 'learned, second network',
  'learned': 'learned, both networks',
  'random': 'control: at random',
  'rematched': 'control: at random, matched',
  'planted': 'control: first, matched',
  'noise': 'control: first, noisy',
}
_KINDS = {
  'permutation': 'permutations',
  'sign': 'signs',
  'scale': 'scales',
  'linear': 'linear maps',
  'rotation': 'rotations',
  'phase': 'phases',
}
_ROW_COLOURS = {
  'naive': '#7f7f7f',
  'frame': '#3f3f3f',
  'permutation': '#1f6fb4',
  'learned_one': '#f0a3c4',
  'learned': '#b0176b',
  'random': '#c2c2c2',
  'rematched': '#e8871e',
  'planted': '#2c8a3d',
  'noise': '#9ac79f',
}
_KIND_COLOURS = {
  'sign': '#17a2a2',
  'scale': '#8c6d31',
  'linear': '#8c6d31',
  'rotation': '#6a3d9a',
  'phase': '#d62728',
}


def row_title(name: str) -> str:
  """Returns the title of a row of a ladder.

  Example:
    >>> row_title('scale_linear')
    '+ scales, linear maps'
  """
  if name in ROWS:
    return ROWS[name]
  return '+ ' + ', '.join(_KINDS[kind] for kind in name.split('_'))


def colour(name: str) -> str:
  """Returns the colour of a row of a ladder, that of the last kind it adds."""
  return _ROW_COLOURS.get(name) or _KIND_COLOURS[name.split('_')[-1]]


def dash(name: str) -> Any:
  """Returns the line style of a row: dots for a random element."""
  return {'random': ':', 'rematched': (0, (1, 2)), 'noise': (0, (4, 2))}.get(
    name, '-'
  )
