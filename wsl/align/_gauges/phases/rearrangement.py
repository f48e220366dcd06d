"""Rules of primitives that move entries, for arrays on which phases act."""

from collections.abc import Sequence

import numpy as np

from wsl import jaxprs
from wsl.align._find import axis_facts, known_constants
from wsl.align._gauges.phases import forms, moves, primitive_moves

Phases = forms.Phases
_LIMIT = 1 << 18  # entries of an array


def move(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Moves entries; a product keeps its factors in place."""
  state = forms.state(c, step.args[0])
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
  dims = primitive_moves.joined(step, form.shape, form.dims)
  if moves.entries(form.shape, dims) > _LIMIT:
    return None
  form = forms.expanded(c, form, dims)
  move = primitive_moves.of(step, form.shape, form.dims, index)
  return None if move is None else forms.moved(c, form, move)


def take(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Takes slices of the stacks of a scan."""
  found: list[forms.State] = []
  for value in step.args:
    state = forms.state(c, value)
    if state is not None:
      if isinstance(state, forms.Product) or 0 in state.dims:
        return None
      move = primitive_moves.of(step, state.shape, state.dims)
      state = None if move is None else forms.moved(c, state, move)
    found.append(state)
  return found


def tie(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Copies an array into a loop; phases on arrays that it changes are 1."""
  (value,), (result,) = step.args, step.results
  new = result.number not in c.known and result.constant is None
  return [forms.state(c, value)] if new else None


def concatenate(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Joins entries along one dimension, a new one of ``stack``."""
  p = step.eqn.params
  stacked = step.name == 'stack'
  axis = p['axis'] if stacked else p['dimension']
  shape = forms.shape_of(step.results[0])
  parts: list[forms.Form] = []
  for value in step.args:
    if 0 in forms.shape_of(value):
      continue
    form = _form(c, value)
    if form is None:
      return None
    if stacked:
      old = form.shape
      places = [k for k in range(len(shape)) if k != axis]
      new = (*old[:axis], 1, *old[axis:])
      form = forms.moved(c, form, moves.placed(old, places, new, form.dims))
    parts.append(form)
  dims = frozenset({axis}).union(*(form.dims for form in parts))
  if moves.entries(shape, dims) > _LIMIT:
    return None
  parts = [forms.expanded(c, form, dims) for form in parts]
  return [forms.Form(shape, dims, _terms(parts, axis))]


def _form(c: Phases, value: axis_facts.Value) -> forms.Form | None:
  """Returns the form of any array but a product; zeros have no term."""
  state = forms.state(c, value)
  if state is not None:
    return state if isinstance(state, forms.Form) else None
  zero = known_constants.is_zero(value.constant)
  unit = forms.ABSENT if zero else forms.FIXED
  return forms.fixed(forms.shape_of(value), unit)


def _terms(parts: Sequence[forms.Form], axis: int) -> tuple[forms.Term, ...]:
  """Joins the k-th terms of forms along an axis, absent ones where they end."""
  terms = []
  for k in range(max(len(form.terms) for form in parts)):
    rows = [
      form.terms[k]
      if k < len(form.terms)
      else forms.constant(form.shape, forms.ABSENT)
      for form in parts
    ]
    tables = (
      np.concatenate([f.table(x) for f, x in zip(parts, column)], axis)
      for column in zip(*rows)
    )
    terms.append(forms.Term(*tables))
  return tuple(terms)
