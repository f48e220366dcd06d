"""A symmetry of hidden units, and of heads in two pinned layers."""

from wsl import align
from wsl.align._gauges import views

F = align.Factor

# Hidden units; heads and the units inside them, in each of two pinned layers.
SYMMETRY = align.Symmetry(
  factors=(
    F('a:0', 3, 'an input'),
    F('a:1', 5),
    F('b:0', 2, 'layers'),
    F('b:1.0', 3, outer=('b:0',)),
    F('b:1.1', 4, outer=('b:0', 'b:1.0')),
  ),
  axes=(
    ('a', ((('a:0',),), (('a:1',),))),
    ('b', ((('b:0',),), (('b:1.0', 'b:1.1'),))),
  ),
)
UNITS, HEADS, INNER = 'a:1', 'b:1.0', 'b:1.1'
OUTER_OF = views.of(SYMMETRY, ('permutation',)).outer_of
