"""Linear equations between powers, over the rationals or modulo 2."""

from collections.abc import Hashable, Iterable, Mapping
import fractions
from typing import Any, TypeAlias

Row: TypeAlias = dict[Hashable, Any]
_ZERO = object()


class System:
  """Equations of the variables of one domain.

  Most equations state that two variables are equal, or one is zero: these are
  merged as they come (union-find). Sums are kept and eliminated at the end.

  Attributes:
    modulus: 2 for parities, 0 for rational powers.
    rows: the sums that are zero, as coefficients by variable.
    reason: why the variables are zero that the next equations set to zero.
  """

  def __init__(self, modulus: int) -> None:
    self.modulus = modulus
    self.rows: list[Row] = []
    self.reason = ''
    self._parent: dict[Any, Any] = {}
    self._zeros: dict[Any, str] = {}

  def find(self, x: Hashable) -> Any:
    """Returns the representative of all variables equal to x, or zero."""
    root = self._root(x)
    return _ZERO if root in self._zeros else root

  def why(self, x: Hashable) -> str | None:
    """Returns why a variable is zero, by an equation of its own."""
    return self._zeros.get(self._root(x))

  def _root(self, x: Hashable) -> Any:
    """Returns the representative of all variables equal to x."""
    path = []
    while x in self._parent:
      path.append(x)
      x = self._parent[x]
    for y in path:
      self._parent[y] = x
    return x

  def equal(self, x: Hashable, y: Hashable) -> None:
    """Requires x = y."""
    x, y = self._root(x), self._root(y)
    if x == y:
      return
    self._parent[x] = y
    if x in self._zeros:
      self._zeros.setdefault(y, self._zeros[x])

  def zero(self, x: Hashable) -> None:
    """Requires x = 0."""
    self._zeros.setdefault(self._root(x), self.reason)

  def sums_to_zero(self, terms: Iterable[tuple[Hashable, Any]]) -> None:
    """Requires that the sum of coefficients times variables is 0."""
    row: Row = {}
    for x, c in terms:
      row[x] = row.get(x, 0) + c
    self.rows.append(row)

  def solutions(self, wanted: Iterable[Hashable]) -> list[Row]:
    """Returns a basis of the solutions, restricted to some variables.

    Other variables are eliminated first. Of the wanted ones, the first in their
    order are free, and each basis vector has one of them equal to 1 and the
    other free ones 0.
    """
    order: dict[Any, int] = {}
    members: dict[Any, list[Hashable]] = {}
    for x in wanted:
      root = self.find(x)
      if root is not _ZERO:
        order.setdefault(root, len(order))
        members.setdefault(root, []).append(x)
    pivots = self._eliminate(order)
    # Each variable as a combination of free ones. A pivot row with a wanted
    # pivot has wanted variables only, and none after the pivot.
    value: dict[Any, Row] = {}
    for x in order:
      value[x] = {x: 1}
      if x in pivots:
        row = pivots[x]
        total: Row = {}
        for y, c in row.items():
          for root, d in value[y].items() if y != x else ():
            total[root] = total.get(root, 0) - c * d
        terms = {r: self._divide(c, row[x]) for r, c in total.items()}
        value[x] = {r: c for r, c in terms.items() if c}
    found: dict[Any, Row] = {x: {} for x in order if x not in pivots}
    for x, terms in value.items():
      for root, c in terms.items():
        found[root] |= dict.fromkeys(members[x], c)
    return list(found.values())

  def _eliminate(self, order: Mapping[Any, int]) -> dict[Any, Row]:
    """Returns the reduced rows by their pivots.

    The pivot of a row is a variable that is not wanted, if it has one, and else
    the last of its variables.
    """
    # The order is total, so that each step removes the last variable of a row.
    rest: dict[Any, int] = {}

    def rank(x: Any) -> int:
      if x in order:
        return order[x]
      return rest.setdefault(x, len(order) + len(rest))

    pivots: dict[Any, Row] = {}
    for given in self.rows:
      row = self._merged(given)
      while row:
        pivot = max(row, key=rank)
        if pivot not in pivots:
          pivots[pivot] = row
          break
        other = pivots[pivot]
        factor = self._divide(row[pivot], other[pivot])
        row = self._merged(row, other, -factor)
    return pivots

  def _merged(self, row: Row, other: Row | None = None, factor: Any = 0) -> Row:
    """Returns a row in representatives, plus a multiple of another one."""
    out: Row = {}
    for source, scale in ((row, 1), (other or {}, factor)):
      for x, c in source.items():
        root = self.find(x)
        if root is not _ZERO:
          out[root] = out.get(root, 0) + c * scale
    if self.modulus:
      out = {x: c % self.modulus for x, c in out.items()}
    return {x: c for x, c in out.items() if c}

  def _divide(self, x: Any, y: Any) -> Any:
    """Returns a quotient; of integers by 1 or -1 it is an integer."""
    if self.modulus:
      return x % self.modulus
    return x * y if y in (1, -1) else fractions.Fraction(x) / y
