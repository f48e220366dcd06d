"""Traces a model and reads off how its weights are used."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from wsl import types
from wsl.stats._linear_maps import reader, records, views


def record(
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: Any,
  measure: records.Measure = records.second_moment,
) -> records.Record:
  """Returns a statistic of every product of a weight and a value.

  Args:
    apply_fn: a function ``(params, inputs) -> anything``.
    params: any pytree of arrays; leaves are numbered in its order.
    inputs: one batch of inputs.
    measure: what is summed over the rows of each product.
  """
  program = jax.make_jaxpr(apply_fn)(params, inputs)
  args = [
    reader.Tracked.leaf(x, views.of_leaf(i, x.shape) if _real(x) else None)
    for i, x in enumerate(jax.tree.leaves(params))
  ]
  args += map(reader.Tracked, jax.tree.leaves(inputs))
  found = records.Record(measure)
  reader.follow(program, args, found)
  return found


def _real(x: types.Array) -> bool:
  return jnp.issubdtype(x.dtype, jnp.floating) and x.size > 0
