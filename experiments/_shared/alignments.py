"""Titles and colours of the methods that align networks."""

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
