"""Rules of elementwise primitives, for arrays on which phases act."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from wsl.align._find import axis_facts, known_constants
from wsl.align._gauges.phases import coefficients, forms, moves
from wsl.align._gauges.phases import names as names_lib

Phases = forms.Phases
Rule: TypeAlias = Callable[[Phases, axis_facts.Step], list[forms.State] | None]


def multiply(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Multiplies by an array that no phase acts on, or two arrays."""
  x, y = (forms.state(c, v) for v in step.args)
  if isinstance(x, forms.Form) and isinstance(y, forms.Form):
    shape = forms.shape_of(step.results[0])
    return [forms.Product(*(_broadcast(c, form, shape) for form in (x, y)))]
  if x is not None and y is not None:
    return None
  given, other = (x, step.args[1]) if y is None else (y, step.args[0])
  if isinstance(given, forms.Product):
    return None if other.axes else [given]
  assert given is not None
  form = _broadcast(c, given, forms.shape_of(step.results[0]))
  table = names_lib.aligned(c.names, other, form.shape, form.dims)
  return [forms.times(c, form, table)]


def _broadcast(c: Phases, form: forms.Form, shape: moves.Shape) -> forms.Form:
  """Repeats a form along dimensions of size 1."""
  if form.shape == shape:
    return form
  move = moves.placed(form.shape, range(len(shape)), shape, form.dims)
  return forms.moved(c, form, move)


def divide(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Divides by an array that no phase acts on."""
  given, other = forms.state(c, step.args[0]), step.args[1]
  if given is None or forms.state(c, other) is not None:
    return None
  if isinstance(given, forms.Product):
    return None if other.axes else [given]
  form = _broadcast(c, given, forms.shape_of(step.results[0]))
  # The inverse of a row has a name of its own, equal for equal rows.
  table = names_lib.aligned(c.names, other, form.shape, form.dims)
  return [forms.times(c, form, coefficients.computed(c.store, 'div', table))]


def negate(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Changes the sign of all terms."""
  state = forms.state(c, step.args[0])
  if not isinstance(state, forms.Form):
    return [state]
  return [forms.scaled(c, state, -1.0)]


def square(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Multiplies an array by itself."""
  state = forms.state(c, step.args[0])
  if not isinstance(state, forms.Form) or step.eqn.params.get('y', 2) != 2:
    return None
  return [forms.Product(state, state)]


def add(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Adds terms; an array that no phase acts on is a fixed term."""
  shape = forms.shape_of(step.results[0])
  found = []
  for k, value in enumerate(step.args):
    state = forms.state(c, value)
    if isinstance(state, forms.Product):
      return None
    if state is None:
      if not known_constants.is_zero(value.constant):
        found.append(forms.fixed(shape))
      continue
    state = _broadcast(c, state, shape)
    if k == 1 and step.name == 'sub':
      state = forms.scaled(c, state, -1.0)
    found.append(state)
  return forms.total(c, found)


def select(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Selects: a sum of the cases times the indicators of their entries."""
  pred, *cases = step.args
  if forms.state(c, pred) is not None:
    return None
  found = []
  for k, value in enumerate(cases):
    state = forms.state(c, value)
    if isinstance(state, forms.Product):
      return None
    if state is not None:
      found.append((k, state))
    elif not known_constants.is_zero(value.constant):
      found.append((k, forms.fixed(forms.shape_of(value))))
  # With 1_k the indicator of the case k, the result is sum_k 1_k x_k.
  dims = frozenset[int]().union(*(form.dims for _, form in found))
  table = names_lib.aligned(c.names, pred, found[0][1].shape, dims)
  parts = []
  for k, form in found:
    own = _indicators(c, table, k)
    form = forms.expanded(c, form, dims)
    terms = tuple(
      t._replace(
        unit=np.where(own == coefficients.ZERO, forms.ABSENT, t.unit),
        coefficient=coefficients.times(c.store, t.coefficient, own),
      )
      for t in form.terms
    )
    parts.append(form._replace(terms=terms))
  return forms.total(c, parts)


def _indicators(c: Phases, table: np.ndarray, case: int) -> np.ndarray:
  """Returns 1 where the predicate is a case and 0 elsewhere, or new rows."""

  def one(index: int) -> int:
    number, names = c.store.entries[index]
    if names:
      return coefficients.row(c.store, ('case', case, index))
    chosen = int(number.real) == case
    return coefficients.ONE if chosen else coefficients.ZERO

  return coefficients.map_entries(c.store, one, table)


def complex_numbers(
  c: Phases, step: axis_facts.Step
) -> list[forms.State] | None:
  """Makes complex numbers x + i y."""
  x, y = (forms.state(c, v) for v in step.args)
  if not isinstance(x, forms.Form) or not isinstance(y, forms.Form):
    return None
  return forms.total(c, [x, forms.scaled(c, y, 1j)])


def part(imaginary: bool) -> Rule:
  """Returns the rule of the real or imaginary parts of complex numbers.

  With r a product of rows and u + i v a number, Re((u + i v) r) is u Re(r) - v
  Im(r), and Im((u + i v) r) is u Im(r) + v Re(r).
  """

  def rule(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
    state = forms.state(c, step.args[0])
    if not isinstance(state, forms.Form):
      return None

    def one(real: bool) -> Callable[[int], int]:
      """Returns the term of Re(r), or of Im(r), of a coefficient."""

      def of(index: int) -> int:
        number, names = c.store.entries[index]
        u, v = complex(number).real, complex(number).imag
        pair = (u, -v) if not imaginary else (v, u)
        if not names:
          return coefficients.of(c.store, pair[0] if real else 0.0)
        key = 'real' if real else 'imag', names
        name = coefficients.name(c.store, key)
        return coefficients.of(c.store, pair[not real], [name])

      return of

    return forms.total(
      c, [forms.mapped(c, state, one(real)) for real in (True, False)]
    )

  return rule
