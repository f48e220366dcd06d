"""Titles and colours of the methods that align networks."""

STYLES = {
  'naive': ('as they are', '#7f7f7f'),
  'weight_matching': ('weight matching', '#1f6fb4'),
  'activation_matching': ('activation matching', '#e8871e'),
  'straight_through': ('straight-through', '#c2559d'),
  'match_many': ('match many', '#17a2a2'),
  'sinkhorn': ('Sinkhorn', '#6a3d9a'),
}
TITLES = {name: title for name, (title, _) in STYLES.items()}
COLOURS = {name: colour for name, (_, colour) in STYLES.items()}
