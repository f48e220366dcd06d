"""Powers of scales and parities of signs: the equations of a traced function.

Let each unit u of an atom have a factor s_u, and let every array that holds the
atom be multiplied by s_u^c along it, with an unknown power c for each
occurrence. A sum needs equal powers, a product adds them, a contraction needs
powers that add up to 0, relu keeps them and exp needs 0. Inputs and outputs
have the power 0. Every solution in which leaves have powers is a gauge: it
changes leaves and no output. This is dimensional analysis with one unit of
measurement for each atom. For signs the same holds modulo 2, with odd and even
functions in place of homogeneous ones.
"""

from collections.abc import Sequence
from typing import Any

from wsl.align._find import axis_facts, known_constants
from wsl.align._gauges import layout
from wsl.align._gauges.powers import system

SCALE, SIGN = (0,), (1,)  # domains
BOTH = (*SCALE, *SIGN)


class Charges:
  """Collects the equations of both domains.

  Attributes:
    domains: the systems of scales and of signs.
  """

  def __init__(self) -> None:
    self.domains = (system.System(0), system.System(2))
    self.layouts: dict[int, layout.Layout] = {}

  def blocks(self, value: axis_facts.Value) -> layout.Layout:
    """Returns the blocks of an array."""
    if value.number not in self.layouts:
      self.layouts[value.number] = layout.of(value)
    return self.layouts[value.number]

  def pin(self, value: axis_facts.Value) -> None:
    """Requires that an array does not change."""
    self.zero(layout.spots(self.blocks(value)))

  def fix(self, constant: axis_facts.Value) -> None:
    """Requires that a constant does not change.

    Entries ``a[i] I[i, j]`` are multiplied by the powers of both axes at i = j:
    these add up to 0, as in ``w + I``, where w becomes S w / S.
    """
    pairs = known_constants.identities(constant.constant)
    found = self.blocks(constant)
    if not pairs or len(found.pieces) > 1:
      self.pin(constant)
      return
    (piece,) = found.pieces
    for i, j in pairs:
      self.combine((piece[i], piece[j]), (1, 1))
    both = {i for pair in pairs for i in pair}
    for i, dimension in enumerate(piece):
      if i not in both:
        self.zero(layout.along(dimension))

  def repeat(self, spots: Sequence[layout.Spot]) -> None:
    """Requires powers of 0 where entries are repeated."""
    self.zero(spots)

  def zero(self, spots: Sequence[layout.Spot], domains: Any = BOTH) -> None:
    """Requires powers of 0."""
    for spot in spots:
      for d in domains:
        self.domains[d].zero(spot)

  def equal(
    self, xs: layout.Dimension, ys: layout.Dimension, domains: Any = BOTH
  ) -> None:
    """Requires equal powers along two dimensions; 0 where they differ."""
    pairs = layout.same(xs, ys)
    if pairs is None:
      self.zero([*layout.along(xs), *layout.along(ys)], domains)
      return
    for x, y in pairs:
      for d in domains:
        self.domains[d].equal(x, y)

  def combine(
    self,
    dimensions: Sequence[layout.Dimension],
    signs: Sequence[Any],
    domains: Any = BOTH,
  ) -> None:
    """Requires that powers along several dimensions add up to 0."""
    first = dimensions[0]
    pairs = [layout.same(first, other) for other in dimensions[1:]]
    if any(p is None for p in pairs):
      for dimension in dimensions:
        self.zero(layout.along(dimension), domains)
      return
    for i, spot in enumerate(layout.along(first)):
      others = [p[i][1] for p in pairs if p is not None]
      for d in domains:
        self.domains[d].sums_to_zero(zip([spot, *others], signs))
