"""Parameters and FLOPs of routes, as sums over their parts."""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax

from wsl import jaxprs, types
from wsl.stitch import _adapter, _segmented
from wsl.stitch._routes import routing


class Cost(NamedTuple):
  """The cost of a part of a network.

  Attributes:
    parameters: number of entries of its leaves, without an adapter's ``ridge``.
    flops: two for each multiply-add of its matrix products and convolutions,
      for the whole batch.
  """

  parameters: int
  flops: int


class Costs(NamedTuple):
  """The cost of each part of a family, by the network's name.

  Attributes:
    embed: of each embedding.
    blocks: of each block.
    head: of each head.
    shapes: the features at each position, D + 1 for each network; they
      determine the cost of an adapter there.
    adapters: the shapes of each adapter, by its name.
  """

  embed: dict[str, Cost]
  blocks: dict[str, tuple[Cost, ...]]
  head: dict[str, Cost]
  shapes: dict[str, tuple[jax.ShapeDtypeStruct, ...]]
  adapters: dict[str, _adapter.Adapter]


def cost(family: routing.Family, inputs: Any) -> Costs:
  r"""Counts the parameters and FLOPs of every part of a family.

  .. math:: \text{FLOPs} = 2 \sum_{\text{products}} B M N K

  over the matrix products and convolutions in the trace of a part. Products in
  a scan count once per iteration; a conditional counts as its more expensive
  branch. Other operations (normalisation, softmax, additions) are not counted,
  as in the papers, so that the costs of parts add up whatever the compiler
  fuses. A loop with an unknown number of iterations is an error. The cost of a
  low-rank adapter includes the product of its factors; ``fold`` it first for
  the cost after training.

  Args:
    family: networks and adapters, as arrays or shapes; nothing is computed.
    inputs: a batch, or its shapes; use a batch of 1 for FLOPs per example.

  Returns:
    Costs of all parts, for ``route_cost``.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from wsl import models, stitch
    >>> mlp, x = models.MLP(widths=(8, 8), outputs=3), jnp.ones((1, 4))
    >>> params = jax.eval_shape(mlp.init, jax.random.key(0), x)['params']
    >>> view = stitch.Segmented(*models.segments(mlp, params))
    >>> costs = cost(stitch.Family({'a': view}, {}), x)
    >>> costs.blocks['a'][0]
    Cost(parameters=56, flops=64)
  """
  embed, blocks, head, shapes = {}, {}, {}, {}
  for name, model in family.models.items():
    params = model.params
    shapes[name] = jax.eval_shape(_segmented.features, model, inputs)
    embed[name] = _part(model.embed, params['embed'], inputs)
    blocks[name] = _blocks(model, shapes[name])
    head[name] = _part(model.head, params['head'], shapes[name][-1])
  adapters = jax.eval_shape(dict, family.adapters)
  return Costs(embed, blocks, head, shapes, adapters)


def route_cost(costs: Costs, route: routing.Route) -> Cost:
  """Sums the costs of the parts of a route.

  Args:
    costs: costs of its family, from ``cost``.
    route: a route that ``check_route`` accepts.

  Returns:
    The sum over the first piece's embedding, all blocks and adapters, and the
    last piece's head. An adapter at two joints counts twice.
  """
  return total(
    [
      costs.embed[route.pieces[0].model],
      *(
        part
        for name, start, stop in route.pieces
        for part in costs.blocks[name][start:stop]
      ),
      *(
        adapter_cost(costs, name, piece)
        for name, piece in zip(route.adapters, route.pieces)
        if name
      ),
      costs.head[route.pieces[-1].model],
    ]
  )


def adapter_cost(costs: Costs, name: str, piece: routing.Piece) -> Cost:
  """Returns the cost of an adapter that follows a piece."""
  adapter = dataclasses.replace(costs.adapters[name], ridge=None)
  shape = costs.shapes[piece.model][piece.stop]
  return _part(_adapter.apply_adapter, adapter, shape)


def total(parts: list[Cost]) -> Cost:
  """Sums costs."""
  return Cost(*(sum(column) for column in zip(*parts)))


def _blocks(
  model: _segmented.Segmented, shapes: tuple[jax.ShapeDtypeStruct, ...]
) -> tuple[Cost, ...]:
  """Returns the cost of each block; stacked ones have that of the first."""
  found = []
  for i in range(1 if model.stacked else model.depth):
    one = jax.eval_shape(
      functools.partial(_segmented.block_params, index=i), model
    )
    found.append(_part(_segmented.block_fn(model, i), one, shapes[i]))
  return tuple(found) * (model.depth if model.stacked else 1)


def _part(fn: Callable[..., Any], params: types.Params, inputs: Any) -> Cost:
  """Returns the cost of one function of parameters and inputs."""
  leaves = jax.tree.leaves(params)
  return Cost(
    sum(math.prod(leaf.shape) for leaf in leaves),
    _flops(jax.make_jaxpr(fn)(params, inputs).jaxpr),
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
