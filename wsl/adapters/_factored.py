"""Weights in factors, and what linear equations make of them."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any, TypeAlias

import jax
from jax.extend import core
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import jaxprs, tree, types


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('base', 'terms'),
  meta_fields=('shape', 'dtype'),
)
@dataclasses.dataclass(frozen=True)
class Weight:
  """The weight ``base + sum_i s_i B_i A_i``, in its current layout.

  Attributes:
    base: an array, or None.
    terms: factors, one or two.
    shape: of the weight.
    dtype: of the weight; the products of the factors are rounded to it.
  """

  base: Any
  terms: tuple[deltas_lib.Factors, ...]
  shape: tuple[int, ...]
  dtype: Any


Value: TypeAlias = Any  # an array, or a Weight


def weight(leaf: Any, added: Any) -> Value:
  """Returns a weight: a leaf, plus a delta of it if there is one."""
  both = [x for x in (leaf, added) if x is not None]
  terms = tuple(x for x in both if deltas_lib.is_factors(x))
  arrays = [tree.read(x) for x in both if not deltas_lib.is_factors(x)]
  dtype = leaf.a.dtype if deltas_lib.is_factors(leaf) else leaf.dtype
  base = arrays[0] if arrays else None
  if len(arrays) == 2:
    wide = tree.wide_dtype(*arrays)
    base = (arrays[0].astype(wide) + arrays[1].astype(wide)).astype(dtype)
  if not terms:
    return base
  return Weight(base, terms, tuple(leaf.shape), jnp.dtype(dtype))


def array(x: Value) -> Any:
  """Returns a value as an array; the products of factors are computed."""
  if not isinstance(x, Weight):
    return x
  products = [tree.read(deltas_lib.dense(term)) for term in x.terms]
  total = functools.reduce(jnp.add, products)
  if x.base is not None:
    total = x.base.astype(total.dtype) + total
  return total.astype(x.dtype)


def cast(x: Weight, dtype: Any) -> Weight:
  """Casts a weight; its factors are cast where they are used."""
  base = None if x.base is None else x.base.astype(dtype)
  return dataclasses.replace(x, base=base, dtype=jnp.dtype(dtype))


def transpose(x: Weight, permutation: tuple[int, ...]) -> Weight:
  """Permutes the axes of a weight."""
  place = {old: new for new, old in enumerate(permutation)}
  move = lambda axes: tuple(place[a] for a in axes)
  shape = tuple(x.shape[a] for a in permutation)

  def moved(term: deltas_lib.Factors) -> deltas_lib.Factors:
    view = term.view.fit(x.shape)
    parts = move(view.rows), move(view.columns), move(view.batch)
    turned = tree.Matrix(*parts, view.groups)
    return dataclasses.replace(term, shape=shape, view=turned)

  base = None if x.base is None else x.base.transpose(permutation)
  terms = tuple(map(moved, x.terms))
  return dataclasses.replace(x, base=base, terms=terms, shape=shape)


def product(eqn: core.JaxprEqn, values: Sequence[Value]) -> Any:
  """Evaluates a ``dot_general`` of an array and a weight.

  Returns:
    The array; None if the weight is not contracted over all inputs or over all
    outputs of its factors, or is one of several matrices.
  """
  place = int(isinstance(values[1], Weight))
  w, x = values[place], values[1 - place]
  contracted, batch = eqn.params['dimension_numbers']
  own, other = contracted[place], contracted[1 - place]
  if batch[0] or x.dtype != w.dtype:
    return None
  total = None
  for term in w.terms:
    part = _term(eqn, x, term, w, other, own, first=place == 0)
    if part is None:
      return None
    total = part if total is None else total + part
  if w.base is not None:
    operands = [w.base, x] if place == 0 else [x, w.base]
    (whole,) = jaxprs.evaluate(eqn, operands)
    total = whole if total is None else total + whole
  return total


# Parameters of a product, of which the rest are of the compiler.
_OPTIONS = ('precision', 'preferred_element_type')


def _term(
  eqn: core.JaxprEqn,
  x: types.Array,
  term: deltas_lib.Factors,
  w: Weight,
  other: tuple[int, ...],
  own: tuple[int, ...],
  *,
  first: bool,
) -> Any:
  """Contracts axes of x with those of s B A; None if they are but a part."""
  view = term.view.fit(w.shape)
  if view.batch or view.groups > 1:
    return None
  a, b = term.a, term.b.T
  # W = (B A)^T: x W = (x A^T) B^T contracts the inputs, x W^T = (x B) A the
  # outputs; either has r (m + n) products an example in place of m n.
  if set(own) == set(view.rows):
    inner, outer, source, target = a, b, view.rows, view.columns
  elif set(own) == set(view.columns):
    inner, outer, source, target = b, a, view.columns, view.rows
  else:
    return None
  sizes = lambda axes: tuple(w.shape[i] for i in axes)
  inner = inner.astype(x.dtype).reshape(-1, *sizes(source))
  axes = tuple(1 + source.index(i) for i in own)
  options: Any = {k: eqn.params[k] for k in _OPTIONS}
  dot: Any = functools.partial(jax.lax.dot_general, **options)
  ranks = dot(x, inner, ((other, axes), ((), ())))
  scale = jnp.asarray(term.scale).astype(ranks.dtype)
  ranks = (ranks * scale).astype(x.dtype)
  last = ranks.ndim - 1
  found = dot(ranks, outer.astype(x.dtype), (((last,), (0,)), ((), ())))
  # The axes of the weight are in its order, and before those of x if it is the
  # first operand.
  found = found.reshape(*found.shape[:last], *sizes(target))
  order = [last + target.index(i) for i in sorted(target)]
  front = list(range(last))
  return found.transpose(order + front if first else front + order)


def by_layer(x: Value) -> Value:
  """Lays a weight out for a scan over its first axis; an array if it can't."""
  if not isinstance(x, Weight):
    return x
  terms = []
  for term in x.terms:
    view = term.view.fit(x.shape)
    if view.batch != (0,) or view.groups > 1:
      return array(x)
    lower = lambda axes: tuple(a - 1 for a in axes)
    layer = tree.Matrix(rows=lower(view.rows), columns=lower(view.columns))
    layers = jnp.broadcast_to(term.scale, (len(term.a),))
    terms.append(deltas_lib.Factors(term.a, term.b, layers, x.shape[1:], layer))
  return Weight(x.base, tuple(terms), x.shape[1:], x.dtype)
