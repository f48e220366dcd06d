"""Rearrangements of flat values: they act on the leading axes only.

Each rule is ``rule(window, eqn, flat, rest)``: the first operand is flat, the
others are values of any kind; it returns the results of the equation.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any, TypeAlias

import jax
from jax.extend import core
import numpy as np

from wsl.tree._chunks import values

Rule: TypeAlias = Callable[
  [values.Window, core.JaxprEqn, values.Flat, Sequence[Any]], Sequence[Any]
]


def _broadcast(
  window: values.Window, eqn: core.JaxprEqn, x: values.Flat, rest: Sequence[Any]
) -> Sequence[Any]:
  """Adds or widens leading axes."""
  shape, dims = eqn.params['shape'], eqn.params['broadcast_dimensions']
  inner = values.shape_of(eqn.invars[0])[x.lead :]
  lead = len(shape) - len(inner)
  values.require(not rest and shape[lead:] == inner)
  values.require(tuple(dims[x.lead :]) == tuple(range(lead, len(shape))))
  array = jax.lax.broadcast_in_dim(
    x.array, (*shape[:lead], window.length), (*dims[: x.lead], lead)
  )
  return [values.Flat(array, lead)]


def _reshape(
  window: values.Window, eqn: core.JaxprEqn, x: values.Flat, rest: Sequence[Any]
) -> Sequence[Any]:
  """Factorises the leading axes and the positions anew, each on its own."""
  shape = values.shape_of(eqn.outvars[0])
  values.require(not rest and eqn.params.get('dimensions') is None)
  before = values.shape_of(eqn.invars[0])[: x.lead]
  fits = [
    lead
    for lead in range(len(shape) + 1)
    if math.prod(shape[:lead]) == math.prod(before)
    and math.prod(shape[lead:]) == window.size
  ]
  values.require(bool(fits))
  # Axes of one entry may count as leading ones or not: keep their number.
  lead = min(fits, key=lambda lead: (shape[:lead] != before, lead))
  return [values.Flat(x.array.reshape(*shape[:lead], window.length), lead)]


def _squeeze(
  window: values.Window, eqn: core.JaxprEqn, x: values.Flat, rest: Sequence[Any]
) -> Sequence[Any]:
  """Drops axes of one entry."""
  del window, rest
  axes = [axis for axis in eqn.params['dimensions'] if axis < x.lead]
  return [values.Flat(jax.lax.squeeze(x.array, axes), x.lead - len(axes))]


def _slice(
  window: values.Window, eqn: core.JaxprEqn, x: values.Flat, rest: Sequence[Any]
) -> Sequence[Any]:
  """Slices leading axes."""
  del rest
  inner = values.shape_of(eqn.invars[0])[x.lead :]
  starts, limits = eqn.params['start_indices'], eqn.params['limit_indices']
  strides = eqn.params['strides'] or (1,) * len(starts)
  values.require(tuple(limits[x.lead :]) == inner)
  values.require(not any(starts[x.lead :]) and set(strides[x.lead :]) <= {1})
  cut = lambda ends, last: (*ends[: x.lead], last)
  array = jax.lax.slice(
    x.array, cut(starts, 0), cut(limits, window.length), cut(strides, 1)
  )
  return [values.Flat(array, x.lead)]


def _dynamic_slice(
  window: values.Window, eqn: core.JaxprEqn, x: values.Flat, rest: Sequence[Any]
) -> Sequence[Any]:
  """Slices leading axes at uniform indices."""
  sizes = eqn.params['slice_sizes']
  indices = rest[: len(sizes)]
  values.require(len(rest) == len(sizes))
  values.require(
    tuple(sizes[x.lead :]) == values.shape_of(eqn.invars[0])[x.lead :]
  )
  values.require(not any(isinstance(i, tuple) for i in indices))
  zero = np.zeros((), rest[0].dtype)
  array = jax.lax.dynamic_slice(
    x.array, (*indices[: x.lead], zero), (*sizes[: x.lead], window.length)
  )
  return [values.Flat(array, x.lead)]


def _transpose(
  window: values.Window, eqn: core.JaxprEqn, x: values.Flat, rest: Sequence[Any]
) -> Sequence[Any]:
  """Permutes leading axes."""
  del window, rest
  order = eqn.params['permutation']
  values.require(tuple(order[x.lead :]) == tuple(range(x.lead, len(order))))
  array = jax.lax.transpose(x.array, (*order[: x.lead], x.lead))
  return [values.Flat(array, x.lead)]


def _reduce(
  window: values.Window, eqn: core.JaxprEqn, x: values.Flat, rest: Sequence[Any]
) -> Sequence[Any]:
  """Reduces leading axes."""
  del window
  axes = eqn.params['axes']
  values.require(not rest and all(axis < x.lead for axis in axes))
  return [values.Flat(values.bind(eqn, [x.array]), x.lead - len(axes))]


def _along(
  window: values.Window, eqn: core.JaxprEqn, x: values.Flat, rest: Sequence[Any]
) -> Sequence[Any]:
  """Accumulates or sorts along a leading axis, or splits it."""
  del window
  values.require(not rest)
  axis = eqn.params['dimension' if 'dimension' in eqn.params else 'axis']
  values.require(axis < x.lead)
  results = values.bind(eqn, [x.array])
  if not eqn.primitive.multiple_results:
    return [values.Flat(results, x.lead)]
  lead = x.lead - (eqn.primitive.name == 'unstack')
  return [values.Flat(result, lead) for result in results]


RULES: dict[str, Rule] = {
  'broadcast_in_dim': _broadcast,
  'reshape': _reshape,
  'squeeze': _squeeze,
  'slice': _slice,
  'dynamic_slice': _dynamic_slice,
  'transpose': _transpose,
  **dict.fromkeys(
    [
      'reduce_sum', 'reduce_prod', 'reduce_max', 'reduce_min', 'reduce_and',
      'reduce_or', 'reduce_xor', 'argmax', 'argmin',
    ],
    _reduce,
  ),
  **dict.fromkeys(
    ['cumsum', 'cumprod', 'cummax', 'cummin', 'sort', 'split', 'unstack'],
    _along,
  ),
}  # fmt: skip
