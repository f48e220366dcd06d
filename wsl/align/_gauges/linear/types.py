r"""Axes on which rotations or invertible maps act: types of a traced function.

Let an invertible A act on an axis of d units. An array holds the axis as a
vector, :math:`A x`, or as a covector, :math:`A^{-\top} x`. A function keeps
this form if it only adds such arrays, multiplies them by numbers that do not
vary along the axis, and contracts vectors with covectors. Leaves may be
either, so the two types are a colouring of the occurrences: a contraction joins
opposite colours, a sum equal ones. Where no colouring exists, as in the square
of a norm, rotations remain, for which the two types are one. Where entries are
added up along the axis, or a number is added to all of them, as in the mean of
a LayerNorm, rotations remain that fix the vector of ones.
"""

from collections.abc import Sequence
import itertools
from typing import Any

from wsl.align._find import axis_facts, axis_tree, known_constants
from wsl.align._gauges import layout

# States of an occurrence: it does not vary along the axis; it is zero; a vector
# or covector; the elementwise product of two of them.
UNIFORM, ZERO, VECTOR, PAIR = 'uniform', 'zero', 'vector', 'pair'


class Types:
  """The states of all occurrences of atoms, and their contradictions.

  ``blocks``, ``pin``, ``zero``, ``repeat`` and ``equal`` have the meaning and
  the arguments that they have in ``charges.Charges``: the rules of primitives
  that move entries serve both. Domains mean nothing here.

  Attributes:
    states: by occurrence.
    factors: of a product, the occurrences that it multiplies.
    failed: why only scales or permutations act on an atom.
    ones: atoms whose rotations fix the vector of ones.
    mixed: atoms of which no colouring exists, and the operation that prevents
      it.
  """

  def __init__(self, layouts: dict[int, layout.Layout]) -> None:
    self.states: dict[layout.Spot, str] = {}
    self._constants: dict[layout.Spot, str] = {}
    self.factors: dict[layout.Spot, tuple[layout.Spot, layout.Spot]] = {}
    self.failed: dict[axis_tree.Axis, str] = {}
    self.ones: set[axis_tree.Axis] = set()
    self.mixed: dict[axis_tree.Axis, str] = {}
    self._layouts = layouts
    self._seen: set[int] = set()
    self._colour: dict[layout.Spot, tuple[layout.Spot, int]] = {}
    self._varying: set[axis_tree.Axis] = set()
    self._reason = ''

  def fail_varying(self) -> None:
    """Records that constants vary along some atoms, as an identity does."""
    for atom in self._varying:
      self.failed.setdefault(atom, 'a constant that varies along it')

  def restart(self) -> None:
    """Forgets contradictions, and keeps the states, for another pass.

    A constant joined with a vector, as by a branch that returns one or the
    other, does not vary in this pass either.
    """
    self.states |= self._constants
    self.failed, self.ones, self.mixed = {}, set(), {}
    self._colour = {}

  def blocks(self, value: axis_facts.Value) -> layout.Layout:
    """Returns the blocks of an array; those of a constant do not vary."""
    if value.number not in self._seen:
      self._seen.add(value.number)
      found = self._layouts.get(value.number) or layout.of(value)
      self._layouts[value.number] = found
      if value.constant is not None:
        state = ZERO if known_constants.is_zero(value.constant) else UNIFORM
        for spot in layout.spots(found):
          self.states[spot] = self._constants[spot] = state
        for i in itertools.chain(*value.constant.diagonal()):
          for spot in (s for p in found.pieces for s in layout.along(p[i])):
            self._varying.add(spot.atom)
    return self._layouts[value.number]

  def fail(self, spot: layout.Spot) -> None:
    """Records that an atom is used in another way."""
    self.failed.setdefault(spot.atom, self._reason)

  def pin(self, value: axis_facts.Value) -> None:
    """Fails for all atoms along which an array varies."""
    self.zero(layout.spots(self.blocks(value)))

  def zero(self, spots: Sequence[layout.Spot], domains: Any = None) -> None:
    """Fails for atoms along which an array varies."""
    for spot in spots:
      if self.states.get(spot) not in (UNIFORM, ZERO):
        self.fail(spot)

  def repeat(self, spots: Sequence[layout.Spot]) -> None:
    """Marks occurrences along which an array repeats its entries."""
    for spot in spots:
      self.states[spot] = UNIFORM

  def equal(
    self, xs: layout.Dimension, ys: layout.Dimension, domains: Any = None
  ) -> None:
    """Gives the entries of one dimension to another."""
    pairs = layout.same(xs, ys)
    if pairs is None:
      for spot in (*layout.along(xs), *layout.along(ys)):
        self.fail(spot)
      return
    for x, y in pairs:
      self.join(x, y)

  def join(self, x: layout.Spot, y: layout.Spot) -> None:
    """Requires two occurrences to be alike; one may not be known yet."""
    a, b = self.states.get(x), self.states.get(y)
    if a is None or b is None:
      known = a or b
      if known is not None:
        self.states[x] = self.states[y] = known
        source, target = (x, y) if b is None else (y, x)
        if source in self.factors:
          self.factors[target] = self.factors[source]
        self._link(x, y, 0)
      return
    if PAIR in (a, b) and a != b and ZERO not in (a, b):
      self.fail(x)
    if {a, b} == {UNIFORM, VECTOR}:
      self.ones.add(x.atom)
    order = (ZERO, UNIFORM, VECTOR, PAIR)
    self.states[x] = self.states[y] = max(a, b, key=order.index)
    for p, q in ((x, y), (y, x)):
      if p in self.factors:
        self.factors.setdefault(q, self.factors[p])
    self._link(x, y, 0)

  def contract(self, x: layout.Spot, y: layout.Spot) -> None:
    """Sums products over an atom: of vectors and covectors."""
    a, b = self.states.get(x), self.states.get(y)
    if ZERO in (a, b) or a == b == UNIFORM:
      return
    if a == b == VECTOR:
      self._link(x, y, 1)
    elif {a, b} == {VECTOR, UNIFORM}:
      self.ones.add(x.atom)
    elif {a, b} == {PAIR, UNIFORM}:
      self.add_up(x if a == PAIR else y)
    else:
      self.fail(x)

  def multiply(self, x: layout.Spot, y: layout.Spot, out: layout.Spot) -> None:
    """Multiplies entries."""
    a, b = self.states.get(x), self.states.get(y)
    if a is None or b is None:
      self.fail(x)
    elif ZERO in (a, b) or a == b == UNIFORM:
      self.states[out] = ZERO if ZERO in (a, b) else UNIFORM
    elif a == b == VECTOR:
      self.states[out] = PAIR
      self.factors[out] = x, y
    elif UNIFORM in (a, b):
      self.join(x if b == UNIFORM else y, out)
    else:
      self.fail(x)

  def add_up(self, x: layout.Spot) -> None:
    """Sums entries over an atom."""
    state = self.states.get(x)
    if state == VECTOR:
      self.ones.add(x.atom)
    elif state == PAIR:
      self._link(*self.factors[x], 1)
    elif state is None:
      self.fail(x)

  def read(self, step: axis_facts.Step, rule: Any) -> None:
    """Applies the rule of a step, and fails where it does not cover it."""
    if axis_facts.is_empty(step):
      return
    self._reason = f'{step.name} of its entries'
    if rule is None or not rule(self, step):
      for value in (*step.args, *step.results):
        self.pin(value)

  def _link(self, x: layout.Spot, y: layout.Spot, opposite: int) -> None:
    """Requires equal or opposite colours."""
    (p, a), (q, b) = self.root(x), self.root(y)
    if p == q:
      if a ^ b ^ opposite:
        self.mixed.setdefault(x.atom, self._reason)
      return
    self._colour[p] = q, a ^ b ^ opposite

  def root(self, x: layout.Spot) -> tuple[layout.Spot, int]:
    """Returns the representative of an occurrence and the relative colour."""
    colour = 0
    while x in self._colour:
      x, turn = self._colour[x]
      colour ^= turn
    return x, colour
