"""What each primitive does to arrays on which phases act."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from wsl import jaxprs
from wsl.align._find import axis_facts
from wsl.align._gauges.phases import contraction, forms, moves
from wsl.align._gauges.powers import charges as charges_lib

Phases = forms.Phases
State: TypeAlias = forms.Form | forms.Product | None
Rule: TypeAlias = Callable[[Phases, axis_facts.Step], list[State] | None]
_LIMIT = 1 << 18  # entries of an array


def apply(c: Phases, step: axis_facts.Step) -> None:
  """Gives the results of a step their forms, or fails for its operands."""
  tied = step.results if step.name == 'loop tie' else ()
  states = [c.state(v) for v in (*step.args, *tied)]
  if all(state is None for state in states):
    return
  rule = RULES.get(step.name)
  found = None if rule is None else rule(c, step)
  if found is None:
    for state in states:
      c.fail(state, f'{step.name} of its entries')
    return
  for value, state in zip(step.results, found):
    if isinstance(state, forms.Form) and forms.is_fixed(state):
      state = None
    if state is not None:
      c.states[value.number] = state


def _shape(value: axis_facts.Value) -> moves.Shape:
  return tuple(axis.size for axis in value.axes)


def _move(c: Phases, step: axis_facts.Step) -> list[State] | None:
  """Moves entries; a product keeps its factors in place."""
  state = c.state(step.args[0])
  if isinstance(state, forms.Product):
    pair = [_moved(c, step, form, 0) for form in state]
    if step.name not in jaxprs.CASTS or None in pair:
      return None
    return [forms.Product(*pair)]  # type: ignore[arg-type]
  assert state is not None
  found = [_moved(c, step, state, i) for i in range(len(step.results))]
  return None if None in found else [*found]


def _moved(
  c: Phases, step: axis_facts.Step, form: forms.Form, index: int
) -> forms.Form | None:
  """Moves the entries of one array."""
  dims = moves.joined(step, form.shape, form.dims)
  if moves.entries(form.shape, dims) > _LIMIT:
    return None
  form = c.expanded(form, dims)
  move = moves.of(step, form.shape, form.dims, index)
  return None if move is None else c.moved(form, move)


def _take(c: Phases, step: axis_facts.Step) -> list[State] | None:
  """Takes slices of the stacks of a scan."""
  found: list[State] = []
  for value in step.args:
    state = c.state(value)
    if state is not None:
      if isinstance(state, forms.Product) or 0 in state.dims:
        return None
      move = moves.of(step, state.shape, state.dims)
      state = None if move is None else c.moved(state, move)
    found.append(state)
  return found


def _multiply(c: Phases, step: axis_facts.Step) -> list[State] | None:
  """Multiplies by an array that no phase acts on, or two arrays."""
  x, y = (c.state(v) for v in step.args)
  if isinstance(x, forms.Form) and isinstance(y, forms.Form):
    return [forms.Product(x, y)] if x.shape == y.shape else None
  if x is not None and y is not None:
    return None
  given, other = (x, step.args[1]) if y is None else (y, step.args[0])
  if isinstance(given, forms.Product):
    return None if other.axes else [given]
  assert given is not None
  form = _broadcast(c, given, _shape(step.results[0]))
  table = c.names.aligned(other, form.shape, form.dims)
  return [c.with_coefficients(form, lambda k: c.names.times(k, table))]


def _broadcast(c: Phases, form: forms.Form, shape: moves.Shape) -> forms.Form:
  """Repeats a form along dimensions of size 1."""
  if form.shape == shape:
    return form
  places = range(len(shape))
  return c.moved(form, moves.broadcast(form.shape, places, shape, form.dims))


def _divide(c: Phases, step: axis_facts.Step) -> list[State] | None:
  """Divides by an array that no phase acts on."""
  given, other = c.state(step.args[0]), step.args[1]
  if given is None or c.state(other) is not None:
    return None
  if isinstance(given, forms.Product):
    return None if other.axes else [given]
  form = _broadcast(c, given, _shape(step.results[0]))
  table = c.names.aligned(other, form.shape, form.dims)
  one = lambda k: c.names.named(('inverse', k))
  inverse = c.names.map(one, table)
  return [c.with_coefficients(form, lambda k: c.names.times(k, inverse))]


def _negate(c: Phases, step: axis_facts.Step) -> list[State] | None:
  """Changes the sign of all terms."""
  state = c.state(step.args[0])
  if not isinstance(state, forms.Form):
    return [state]
  return [c.with_coefficients(state, lambda k: c.names.scaled(k, -1.0))]


def _square(c: Phases, step: axis_facts.Step) -> list[State] | None:
  """Multiplies an array by itself."""
  state = c.state(step.args[0])
  if not isinstance(state, forms.Form) or step.eqn.params.get('y', 2) != 2:
    return None
  return [forms.Product(state, state)]


def _add(c: Phases, step: axis_facts.Step) -> list[State] | None:
  """Adds terms; what no phase acts on is a fixed term."""
  found = []
  for k, value in enumerate(step.args):
    state = c.state(value)
    if isinstance(state, forms.Product):
      return None
    shape = _shape(step.results[0])
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
  return [c.sum(found)]


def _select(c: Phases, step: axis_facts.Step) -> list[State] | None:
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
      empty = forms.Form(_shape(value), frozenset(), ())
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
  return [c.sum(parts)]


def _complex(c: Phases, step: axis_facts.Step) -> list[State] | None:
  """Makes complex numbers x + i y."""
  x, y = (c.state(v) for v in step.args)
  if not isinstance(x, forms.Form) or not isinstance(y, forms.Form):
    return None
  y = c.with_coefficients(y, lambda k: c.names.scaled(k, 1j))
  return [c.sum([x, y])]


def _part(imaginary: bool) -> Rule:
  """Returns the rule of the real or imaginary parts of complex numbers.

  With r a product of rows and u + i v a number, Re((u + i v) r) is u Re(r) - v
  Im(r), and Im((u + i v) r) is u Im(r) + v Re(r).
  """

  def rule(c: Phases, step: axis_facts.Step) -> list[State] | None:
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
    return [c.sum([real, imag])]

  return rule


def _concatenate(c: Phases, step: axis_facts.Step) -> list[State] | None:
  """Joins entries along one dimension, a new one of ``stack``."""
  p = step.eqn.params
  stacked = step.name == 'stack'
  axis = p['axis'] if stacked else p['dimension']
  shape = _shape(step.results[0])
  given = [c.state(v) for v in step.args]
  parts: list[forms.Form] = []
  for value, state in zip(step.args, given):
    if isinstance(state, forms.Product):
      return None
    if state is None:
      unit = forms.ABSENT if charges_lib.is_zero(value) else forms.FIXED
      state = forms.Form(_shape(value), frozenset(), ())
      term = forms.constant(state, unit, c.names)
      state = state._replace(terms=(term,))
    if stacked:
      old = state.shape
      places = [k for k in range(len(shape)) if k != axis]
      new = (*old[:axis], 1, *old[axis:])
      state = c.moved(state, moves.broadcast(old, places, new, state.dims))
    parts.append(state)
  dims = frozenset({axis}).union(*(form.dims for form in parts))
  if moves.entries(shape, dims) > _LIMIT:
    return None
  parts = [c.expanded(form, dims) for form in parts]
  most = max(len(form.terms) for form in parts)
  terms = []
  for k in range(most):
    rows = [
      form.terms[k]
      if k < len(form.terms)
      else forms.constant(form, forms.ABSENT, c.names)
      for form in parts
    ]
    tables = (
      np.concatenate([f.table(x) for f, x in zip(parts, column)], axis)
      for column in zip(*rows)
    )
    terms.append(forms.Term(*tables))
  return [forms.Form(shape, dims, tuple(terms))]


def _dot(c: Phases, step: axis_facts.Step) -> list[State] | None:
  """Contracts two arrays, or applies a linear map to each row of one."""
  numbers = step.eqn.params['dimension_numbers']
  (cx, cy), (bx, by) = numbers
  x, y = (c.state(v) for v in step.args)
  reason = f'{step.name} of its entries'
  if isinstance(x, forms.Form) and isinstance(y, forms.Form):
    pairs = [*zip(cx, cy)], [*zip(bx, by)]
    contraction.contract(c, x, y, *pairs, reason)
    return [None]
  left = y is None
  form = x if left else y
  own, batch = (cx, bx) if left else (cy, by)
  if not isinstance(form, forms.Form):
    return None
  if any(i in form.dims and form.shape[i] > 1 for i in own):
    return None
  found = c.uniform(form, ('product', step.results[0].number))
  if found is None:
    return None
  # The other operand has a row for each batch index.
  shape = _shape(step.results[0])
  free = [i for i in range(len(form.shape)) if i not in (*own, *batch)]
  start = len(batch)
  if not left:
    start += len(step.args[0].axes) - len(cx) - len(bx)
  places = {i: k for k, i in enumerate(batch)}
  places |= {i: start + k for k, i in enumerate(free)}
  tags = [i for i in batch if i in form.dims]
  result = _placed(found, places, shape)
  for i in tags:
    result = _tagged(c, result, places[i])
  return [result]


def _placed(
  form: forms.Form, places: dict[int, int], shape: moves.Shape
) -> forms.Form:
  """Moves dimensions to places among those of a result."""
  order = sorted(places, key=lambda i: places[i])

  def one(x: np.ndarray) -> np.ndarray:
    # Dimensions that are contracted have one entry, or are of size 1.
    rest = [i for i in range(x.ndim) if i not in places]
    x = np.transpose(x, [*order, *rest])
    sizes = [1] * len(shape)
    for n, i in zip(x.shape, order):
      sizes[places[i]] = n
    return x.reshape(sizes)

  terms = tuple(forms.Term(*map(one, t)) for t in form.terms)
  dims = frozenset(places[i] for i in form.dims if i in places)
  return forms.Form(shape, dims, terms)


def _tagged(c: Phases, form: forms.Form, dim: int) -> forms.Form:
  """Gives sources at different indices of a dimension different names."""
  if form.shape[dim] == 1:
    return form
  terms = []
  for t in form.terms:
    source = form.table(t.source)
    parts = [
      c.sourced(('row', k), np.take(source, [k], dim))
      for k in range(form.shape[dim])
    ]
    terms.append(t._replace(source=np.concatenate(parts, dim)))
  return form._replace(terms=tuple(terms))


def _reduce_sum(c: Phases, step: axis_facts.Step) -> list[State] | None:
  """Adds up a product, as a contraction does, or rows."""
  state, axes = c.state(step.args[0]), step.eqn.params['axes']
  if any(isinstance(i, str) for i in axes):
    return None
  if isinstance(state, forms.Product):
    rest = [i for i in range(len(state.left.shape)) if i not in axes]
    pairs = [(i, i) for i in axes], [(i, i) for i in rest]
    contraction.contract(c, *state, *pairs, f'{step.name} of their products')
    return [None]
  assert state is not None
  if any(i in state.dims and state.shape[i] > 1 for i in axes):
    return None
  found = c.uniform(state, ('sum', step.results[0].number))
  if found is None:
    return None
  kept = [i for i in range(len(state.shape)) if i not in axes]
  places = {i: k for k, i in enumerate(kept)}
  return [_placed(found, places, _shape(step.results[0]))]


MOVES = (
  *jaxprs.CASTS, 'broadcast_in_dim', 'expand_dims', 'optimization_barrier',
  'reshape', 'rev', 'slice', 'split', 'squeeze', 'transpose',
)  # fmt: skip
RULES: dict[str, Rule] = {
  **dict.fromkeys(MOVES, _move),
  **dict.fromkeys(('add', 'sub', 'add_any'), _add),
  **dict.fromkeys(('square', 'integer_pow'), _square),
  **dict.fromkeys(('concatenate', 'stack'), _concatenate),
  'complex': _complex,
  'div': _divide,
  'dot_general': _dot,
  'imag': _part(True),
  'loop take': _take,
  'mul': _multiply,
  'neg': _negate,
  'real': _part(False),
  'reduce_sum': _reduce_sum,
  'select_n': _select,
}
