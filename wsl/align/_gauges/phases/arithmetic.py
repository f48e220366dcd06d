"""What elementwise primitives do to arrays on which phases act."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from wsl.align._find import axis_facts
from wsl.align._gauges.phases import forms, moves
from wsl.align._gauges.powers import charges as charges_lib

Phases = forms.Phases
Rule: TypeAlias = Callable[[Phases, axis_facts.Step], list[forms.State] | None]


def multiply(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Multiplies by an array that no phase acts on, or two arrays."""
  x, y = (c.state(v) for v in step.args)
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
  table = c.names.aligned(other, form.shape, form.dims)
  return [c.with_coefficients(form, lambda k: c.names.times(k, table))]


def _broadcast(c: Phases, form: forms.Form, shape: moves.Shape) -> forms.Form:
  """Repeats a form along dimensions of size 1."""
  if form.shape == shape:
    return form
  places = range(len(shape))
  return c.moved(form, moves.broadcast(form.shape, places, shape, form.dims))


def divide(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Divides by an array that no phase acts on."""
  given, other = c.state(step.args[0]), step.args[1]
  if given is None or c.state(other) is not None:
    return None
  if isinstance(given, forms.Product):
    return None if other.axes else [given]
  form = _broadcast(c, given, forms.shape_of(step.results[0]))
  table = c.names.aligned(other, form.shape, form.dims)
  one = lambda k: c.names.named(('inverse', k))
  inverse = c.names.map(one, table)
  return [c.with_coefficients(form, lambda k: c.names.times(k, inverse))]


def negate(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Changes the sign of all terms."""
  state = c.state(step.args[0])
  if not isinstance(state, forms.Form):
    return [state]
  return [c.with_coefficients(state, lambda k: c.names.scaled(k, -1.0))]


def square(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Multiplies an array by itself."""
  state = c.state(step.args[0])
  if not isinstance(state, forms.Form) or step.eqn.params.get('y', 2) != 2:
    return None
  return [forms.Product(state, state)]


def add(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Adds terms; what no phase acts on is a fixed term."""
  found = []
  for k, value in enumerate(step.args):
    state = c.state(value)
    if isinstance(state, forms.Product):
      return None
    shape = forms.shape_of(step.results[0])
    if state is None:
      if not charges_lib.is_zero(value):
        form = forms.Form(shape, frozenset(), ())
        term = forms.constant(form, forms.FIXED, c.names)
        found.append(form._replace(terms=(term,)))
      continue
    state = _broadcast(c, state, shape)
    if k == 1 and step.name == 'sub':
      state = c.with_coefficients(state, lambda k: c.names.scaled(k, -1.0))
    found.append(state)
  return c.sum(found)


def select(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Selects: a sum of the cases times the indicators of their entries."""
  pred, *cases = step.args
  if c.state(pred) is not None:
    return None
  found = []
  for k, value in enumerate(cases):
    state = c.state(value)
    if isinstance(state, forms.Product):
      return None
    if state is None:
      if charges_lib.is_zero(value):
        continue
      empty = forms.Form(forms.shape_of(value), frozenset(), ())
      term = forms.constant(empty, forms.FIXED, c.names)
      state = empty._replace(terms=(term,))
    found.append((k, state))
  dims = frozenset[int]().union(*(form.dims for _, form in found))
  table = c.names.aligned(pred, found[0][1].shape, dims)

  def indicator(k: int) -> Callable[[int], int]:
    def one(index: int) -> int:
      number, names = c.names.coefficients[index]
      if names:
        return c.names.named(('case', k, index))
      return c.names.one if int(number.real) == k else c.names.zero

    return one

  parts = []
  for k, form in found:
    own = c.names.map(indicator(k), table)
    form = c.expanded(form, dims)
    terms = tuple(
      t._replace(
        unit=np.where(own == c.names.zero, forms.ABSENT, t.unit),
        coefficient=c.names.times(t.coefficient, own),
      )
      for t in form.terms
    )
    parts.append(form._replace(terms=terms))
  return c.sum(parts)


def complex_numbers(
  c: Phases, step: axis_facts.Step
) -> list[forms.State] | None:
  """Makes complex numbers x + i y."""
  x, y = (c.state(v) for v in step.args)
  if not isinstance(x, forms.Form) or not isinstance(y, forms.Form):
    return None
  y = c.with_coefficients(y, lambda k: c.names.scaled(k, 1j))
  return c.sum([x, y])


def part(imaginary: bool) -> Rule:
  """Returns the rule of the real or imaginary parts of complex numbers.

  With r a product of rows and u + i v a number, Re((u + i v) r) is u Re(r) - v
  Im(r), and Im((u + i v) r) is u Im(r) + v Re(r).
  """

  def rule(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
    state = c.state(step.args[0])
    if not isinstance(state, forms.Form):
      return None

    def one(real: bool) -> Callable[[int], int]:
      def of(index: int) -> int:
        number, names = c.names.coefficients[index]
        u, v = complex(number).real, complex(number).imag
        pair = (u, -v) if not imaginary else (v, u)
        if not names:
          return c.names.coefficient(pair[0] if real else 0.0)
        key = 'real' if real else 'imag', names
        return c.names.coefficient(pair[not real], [c.names.name(key)])

      return of

    names = c.names
    real = c.with_coefficients(state, lambda k: names.map(one(True), k))
    imag = c.with_coefficients(state, lambda k: names.map(one(False), k))
    return c.sum([real, imag])

  return rule
