"""Rules of products and of sums along axes, for arrays on which phases act."""

from collections.abc import Sequence

import numpy as np

from wsl.align._find import axis_facts
from wsl.align._gauges.phases import contraction, forms, moves

Phases = forms.Phases


def dot(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Contracts two arrays, or applies a linear map to each row of one."""
  numbers = step.eqn.params['dimension_numbers']
  (cx, cy), (bx, by) = numbers
  x, y = (forms.state(c, v) for v in step.args)
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
  found = _summed(c, form, own, ('product', step.results[0].number))
  if found is None:
    return None
  # The other operand has a row for each batch index.
  shape = forms.shape_of(step.results[0])
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


def _summed(
  c: Phases, form: forms.Form, dims: Sequence[int], key: tuple[str, int]
) -> forms.Form | None:
  """Applies a linear map, the same to each row, that sums over dimensions."""
  found: forms.Form | None = form
  for i in dims:
    found = None if found is None else _collapsed(c, found, i)
  return None if found is None else forms.uniform(c, found, key)


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


def _collapsed(c: Phases, form: forms.Form, dim: int) -> forms.Form | None:
  """Makes a dimension one of rows, if its entries differ in phases only.

  The phases are equal then, as a sum over the dimension mixes the entries. Real
  and imaginary parts belong together if their phases are the same all along.
  """
  if form.shape[dim] == 1 or dim not in form.dims:
    return form._replace(dims=form.dims - {dim})
  terms = []
  for t in form.terms:
    first = [np.take(x, [0], dim) for x in t]
    part = lambda unit: np.where(unit < 0, unit, unit & 1)
    same = (part(t.unit) == part(first[0])).all()
    if not same or (t.source != first[1]).any() or (t[2] != first[2]).any():
      return None
    c.links.append((t.unit >> 1, first[0] >> 1, False))
    rows = np.moveaxis(form.table(t.unit) >> 1, dim, -1)
    shape = np.expand_dims(rows[..., 0], dim).shape
    sources = np.broadcast_to(first[1], shape).ravel().tolist()
    keys = zip(sources, rows.reshape(-1, rows.shape[-1]))
    found = [forms.source(c, ('along', s, row.tobytes())) for s, row in keys]
    first[1] = np.asarray(found).reshape(shape)
    terms.append(forms.Term(*first))
  return forms.Form(form.shape, form.dims - {dim}, tuple(terms))


def _tagged(c: Phases, form: forms.Form, dim: int) -> forms.Form:
  """Gives sources at different indices of a dimension different names."""
  if form.shape[dim] == 1:
    return form
  terms = []
  for t in form.terms:
    source = form.table(t.source)
    parts = [
      forms.sourced(c, ('row', k), np.take(source, [k], dim))
      for k in range(form.shape[dim])
    ]
    terms.append(t._replace(source=np.concatenate(parts, dim)))
  return form._replace(terms=tuple(terms))


def reduce_sum(c: Phases, step: axis_facts.Step) -> list[forms.State] | None:
  """Adds up a product, as a contraction does, or rows."""
  state, axes = forms.state(c, step.args[0]), step.eqn.params['axes']
  if any(isinstance(i, str) for i in axes):
    return None
  if isinstance(state, forms.Product):
    rest = [i for i in range(len(state.left.shape)) if i not in axes]
    pairs = [(i, i) for i in axes], [(i, i) for i in rest]
    contraction.contract(c, *state, *pairs, f'{step.name} of their products')
    return [None]
  assert state is not None
  found = _summed(c, state, axes, ('sum', step.results[0].number))
  if found is None:
    return None
  kept = [i for i in range(len(state.shape)) if i not in axes]
  places = {i: k for k, i in enumerate(kept)}
  return [_placed(found, places, forms.shape_of(step.results[0]))]
