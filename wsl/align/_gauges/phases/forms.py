"""Arrays whose entries are linear combinations of real and imaginary parts.

A phase z acts on a pair of entries of a leaf, (re, im). An array that depends
linearly on such leaves has, at each entry, a sum of terms: a coefficient times
the real or the imaginary part of a number that is multiplied by z. Where the
part comes from, such as the leaf and the products on the way, is its source.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from wsl.align._find import axis_facts
from wsl.align._gauges.phases import coefficients, moves
from wsl.align._gauges.phases import names as names_lib

ABSENT, FIXED = -1, -2  # units of zeros, and of entries without a phase
_TERMS = 16


class Term(NamedTuple):
  """A term of each entry, in tables that broadcast to those of the entries.

  Attributes:
    unit: 2 z for the real part, 2 z + 1 for the imaginary part of the number
      on which the phase z acts; or ``ABSENT``, or ``FIXED``.
    source: the source.
    coefficient: see ``Names``.
  """

  unit: np.ndarray
  source: np.ndarray
  coefficient: np.ndarray


class Form(NamedTuple):
  """An array: a sum of terms at each entry.

  Attributes:
    shape: its shape.
    dims: the dimensions along which entries are distinguished.
    terms: the terms.
  """

  shape: moves.Shape
  dims: moves.Dims
  terms: tuple[Term, ...]

  def table(self, x: np.ndarray) -> np.ndarray:
    """Broadcasts a table to all entries."""
    return np.broadcast_to(x, moves.sizes(self.shape, self.dims))


class Product(NamedTuple):
  """The elementwise product of two arrays."""

  left: Form
  right: Form


State: TypeAlias = Form | Product | None


class Phases(NamedTuple):
  """The forms of a function's arrays, and the constraints on phases.

  Attributes:
    states: forms and products, by the numbers of arrays.
    store: the coefficients.
    names: of the rows of other arrays.
    links: pairs of tables of phases, and whether they are opposite: one is
      1 / conj(z) where the other is z.
    failed: tables of phases that have to be 1, and why.
    sources: the number of each source, by the way it is computed.
    known: the numbers of inputs, parameters and results of earlier steps.
  """

  states: dict[int, Form | Product]
  store: coefficients.Store
  names: names_lib.Names
  links: list[tuple[np.ndarray, np.ndarray, bool]]
  failed: list[tuple[np.ndarray, str]]
  sources: dict[Any, int]
  known: set[int]


def begin(facts: axis_facts.Facts) -> Phases:
  """Returns the state before the first step of a function."""
  known = {0, *(v.number for v in (*facts.leaves, *facts.fixed))}
  names = names_lib.begin(facts.steps)
  return Phases({}, names.store, names, [], [], {}, known)


def state(c: Phases, value: axis_facts.Value) -> State:
  """Returns the form of an array; None if no phase acts on it."""
  return None if value.constant is not None else c.states.get(value.number)


def source(c: Phases, key: Any) -> int:
  """Returns the source with a key."""
  return c.sources.setdefault(key, len(c.sources))


def sourced(c: Phases, key: Any, x: np.ndarray) -> np.ndarray:
  """Returns the sources that an operation derives from given ones."""
  if key is None:
    return x
  return coefficients.map_entries(c.store, lambda s: source(c, (key, s)), x)


def fail(c: Phases, state: State, reason: str) -> None:
  """Requires that the phases on an array are 1."""
  forms = [*state] if isinstance(state, Product) else [state]
  for form in forms:
    if isinstance(form, Form):
      c.failed.extend((t.unit >> 1, reason) for t in form.terms)


def moved(c: Phases, form: Form, move: moves.Move) -> Form:
  """Moves the entries of a form."""
  one = (1,) * len(move.shape)
  apply = lambda x: x.reshape(one) if x.size == 1 else move.apply(x)
  terms = tuple(
    Term(
      apply(t.unit),
      sourced(c, move.key, apply(t.source)),
      coefficients.moved(c.store, move.key, apply(t.coefficient)),
    )
    for t in form.terms
  )
  return Form(move.shape, move.dims, terms)


def expanded(c: Phases, form: Form, dims: moves.Dims) -> Form:
  """Distinguishes the entries along more dimensions.

  Sources and coefficients are then those of a row at an index.
  """
  for i in sorted(dims - form.dims):
    if form.shape[i] > 1:
      # The table is repeated along i; names say which part of the row is meant.
      place = moves.rows(form.shape, form.dims).index(i)
      keys = [('at', place, k) for k in range(form.shape[i])]
      join = lambda parts, i=i: np.concatenate(parts, i)
      terms = tuple(
        Term(
          t.unit,
          join([sourced(c, k, t.source) for k in keys]),
          join([coefficients.moved(c.store, k, t.coefficient) for k in keys]),
        )
        for t in form.terms
      )
      form = Form(form.shape, form.dims | {i}, terms)
  return form._replace(dims=form.dims | dims)


def times(c: Phases, form: Form, table: np.ndarray) -> Form:
  """Multiplies all terms by coefficients."""
  return _changed(form, lambda k: coefficients.times(c.store, k, table))


def scaled(c: Phases, form: Form, number: complex) -> Form:
  """Multiplies all terms by a number."""
  return _changed(form, lambda k: coefficients.scaled(c.store, k, number))


def mapped(c: Phases, form: Form, fn: Callable[[int], int]) -> Form:
  """Replaces the coefficients of all terms by a function of them."""
  return _changed(form, lambda k: coefficients.map_entries(c.store, fn, k))


def _changed(form: Form, fn: Callable[[np.ndarray], np.ndarray]) -> Form:
  """Replaces the tables of coefficients of all terms."""
  terms = (t._replace(coefficient=fn(t.coefficient)) for t in form.terms)
  return form._replace(terms=tuple(terms))


def uniform(c: Phases, form: Form, key: Any) -> Form | None:
  """Returns the terms of a linear operation on each row, the same for all.

  A named row is a factor of each entry of the row, which an operation that
  adds up entries of a row mixes: only numbers are factors of its results.
  """
  table = c.store.entries
  for t in form.terms:
    if any(table[k][1] for k in np.unique(t.coefficient).tolist()):
      return None
  terms = tuple(
    t._replace(source=sourced(c, key, t.source)) for t in form.terms
  )
  return form._replace(terms=terms)


def total(c: Phases, forms: Sequence[Form]) -> list[State] | None:
  """Adds forms of one shape; None if they have too many terms."""
  if len({form.shape for form in forms}) > 1:
    return None
  dims = frozenset[int]().union(*(form.dims for form in forms))
  terms = [t for f in forms for t in expanded(c, f, dims).terms]
  if len(terms) > _TERMS:
    return None
  return [Form(forms[0].shape, dims, tuple(terms))]


def shape_of(value: axis_facts.Value) -> moves.Shape:
  """Returns the shape of an array."""
  return tuple(axis.size for axis in value.axes)


def constant(shape: moves.Shape, unit: int) -> Term:
  """Returns the term ``FIXED`` or ``ABSENT`` of all entries of an array."""
  zero = np.zeros((1,) * len(shape), np.int64)
  return Term(zero + unit, zero, zero + coefficients.ONE)


def fixed(shape: moves.Shape, unit: int = FIXED) -> Form:
  """Returns the form of an array whose entries no phase changes."""
  return Form(shape, frozenset(), (constant(shape, unit),))


def is_fixed(form: Form) -> bool:
  """Returns True if no phase acts on any entry."""
  return all((t.unit < 0).all() for t in form.terms)
