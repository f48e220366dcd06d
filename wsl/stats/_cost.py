"""Parameters and FLOPs of a function, from its trace."""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import jax

from wsl import jaxprs, types


class Cost(NamedTuple):
  """The cost of a network or of a part of it.

  Attributes:
    parameters: number of entries of its leaves.
    flops: two for each multiply-add of its matrix products and convolutions,
      for the whole batch.
  """

  parameters: int
  flops: int


def cost(
  apply_fn: Callable[..., Any], params: types.Params, *inputs: Any
) -> Cost:
  r"""Counts the parameters and FLOPs of a function, without computing it.

  .. math:: \text{FLOPs} = 2 \sum_{\text{products}} B M N K

  over the matrix products and convolutions in its trace. Products in a scan
  count once per iteration; a conditional counts as its more expensive branch.
  Other operations (normalisation, softmax, additions) are not counted, so that
  the costs of parts add up whatever the compiler fuses.

  Args:
    apply_fn: a function ``apply_fn(params, *inputs)``.
    params: its parameters, as arrays or shapes.
    *inputs: a batch, or its shapes; use a batch of 1 for FLOPs per example.

  Returns:
    The cost. Multiply-adds (MACs) are half of its FLOPs.

  Raises:
    ValueError: if the function has a loop of unknown length.

  Example:
    >>> import jax.numpy as jnp
    >>> cost(lambda p, x: x @ p['w'] + p['b'],
    ...      {'w': jnp.ones((4, 3)), 'b': jnp.ones((1, 3))}, jnp.ones((1, 4)))
    Cost(parameters=15, flops=24)
  """
  leaves = jax.tree.leaves(params)
  return Cost(
    sum(math.prod(leaf.shape) for leaf in leaves),
    _flops(jax.make_jaxpr(apply_fn)(params, *inputs).jaxpr),
  )


def _flops(jaxpr: Any) -> int:
  """Counts two FLOPs for each multiply-add in the products of a jaxpr."""
  count = 0
  for eqn in jaxpr.eqns:
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == 'dot_general':
      # Each output entry sums over the contracted axes.
      (contracted, _), _ = eqn.params['dimension_numbers']
      left = eqn.invars[0].aval.shape
      count += 2 * out.size * math.prod(left[i] for i in contracted)
    elif name == 'conv_general_dilated':
      # Each output entry sums over the kernel, for one output feature.
      kernel = eqn.invars[1].aval.shape
      features = eqn.params['dimension_numbers'].rhs_spec[0]
      count += 2 * out.size * (math.prod(kernel) // kernel[features])
    elif name == 'while':
      raise ValueError(
        'cost: a while loop of unknown length: write it as a scan, or count '
        'the parts around it'
      )
    elif name == 'cond':
      count += max(map(_flops, jaxprs.inner(eqn)))
    elif name != 'custom_linear_solve':  # a solve is not a product
      times = eqn.params['length'] if name == 'scan' else 1
      count += times * sum(map(_flops, jaxprs.inner(eqn)))
  return count
