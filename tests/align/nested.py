"""A symmetry of nested, fused and quadratic groups, written by hand."""

from wsl import align

F = align.Factor

FACTORS = (
  F('q:0', 5, 'an input'),
  F('q:1.0', 3),  # heads
  F('q:1.1', 4, outer=('q:1.0',)),  # their units
  F('r:0', 6),  # occurs twice in one leaf
  F('s:0', 2, 'layers'),
  F('s:1.0', 3, outer=('s:0',)),
  F('s:1.1', 2, outer=('s:0', 's:1.0')),
)
AXES = (
  ('b', ((('q:1.0', 'q:1.1'),),)),
  # A fused axis of three segments.
  ('f', ((('q:0',), ('r:0',), ('q:1.0', 'q:1.1')), (('r:0',),))),
  # heads * (units + r) + layers * (s * (t + r) + inputs)
  (
    'i',
    (
      (
        ('q:1.0', 'q:1.1'),
        ('q:1.0', 'r:0'),
        ('s:0', 's:1.0', 's:1.1'),
        ('s:0', 's:1.0', 'r:0'),
        ('s:0', 'q:0'),
      ),
    ),
  ),
  ('q', ((('q:0',),), (('q:1.0', 'q:1.1'),))),
  ('r', ((('r:0',),), (('r:0',),))),
  ('s', ((('s:0',),), (('s:1.0', 's:1.1'),))),
)
INTERLEAVED = (
  align.Interleaved('i', 0, 0, 2, 1),
  align.Interleaved('i', 0, 2, 3, 1),
  align.Interleaved('i', 0, 2, 2, 2),
)
SHAPES = {
  'b': (12,), 'f': (23, 6), 'i': (88,), 'q': (5, 12), 'r': (6, 6), 's': (2, 6),
}  # fmt: skip
