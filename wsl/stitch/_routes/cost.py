"""What a route costs: parameters and products, which add up over its parts."""

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
  """The size of a part.

  Attributes:
    parameters: entries of its leaves, an adapter's ``ridge`` aside.
    flops: 2 for each multiplication and addition of its matrix products and
      convolutions, for the whole batch.
  """

  parameters: int
  flops: int


class Costs(NamedTuple):
  """The cost of each part of a family, by the network's name.

  Attributes:
    embed: of each embedding.
    blocks: of each block.
    head: of each head.
    shapes: the features at each position, D + 1 for each network, which decide
      what an adapter costs there.
    adapters: each adapter's shapes, by its name.
  """

  embed: dict[str, Cost]
  blocks: dict[str, tuple[Cost, ...]]
  head: dict[str, Cost]
  shapes: dict[str, tuple[jax.ShapeDtypeStruct, ...]]
  adapters: dict[str, _adapter.Adapter]


def cost(family: routing.Family, inputs: Any) -> Costs:
  r"""Counts the parameters and products of every part of a family.

  .. math:: \text{FLOPs} = 2 \sum_{\text{products}} B M N K

  over the matrix products and convolutions that a part is traced to: those of a
  scan as often as it repeats, of a conditional the larger side. What is not a
  product (normalisation, softmax, additions) is not counted, as in the papers,
  so that parts add up whatever a compiler fuses. A loop without a known number
  of rounds is an error. A low-rank adapter pays for the product of its factors;
  ``fold`` it first to count what is left once it is trained.

  Args:
    family: networks and adapters; arrays or their shapes, nothing is run.
    inputs: a batch, or its shapes; give a batch of 1 for FLOPs per example.

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
  """Adds up the parts of a route.

  Args:
    costs: of its family, by ``cost``.
    route: a route that ``check_route`` accepts.

  Returns:
    The sums over the first piece's embedding, all blocks and adapters, and the
    last piece's head. An adapter that stands in two places counts twice.
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
  """Returns what an adapter costs after a piece."""
  adapter = dataclasses.replace(costs.adapters[name], ridge=None)
  shape = costs.shapes[piece.model][piece.stop]
  return _part(_adapter.apply_adapter, adapter, shape)


def total(parts: list[Cost]) -> Cost:
  """Adds costs up."""
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
  leaves = jax.tree.leaves(params)
  return Cost(
    sum(math.prod(leaf.shape) for leaf in leaves),
    _flops(jax.make_jaxpr(fn)(params, inputs).jaxpr),
  )


def _flops(jaxpr: Any) -> int:
  """Counts the products of a jaxpr, twice each."""
  count = 0
  for eqn in jaxpr.eqns:
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == 'dot_general':
      (contracted, _), _ = eqn.params['dimension_numbers']
      left = eqn.invars[0].aval.shape
      count += 2 * out.size * math.prod(left[i] for i in contracted)
    elif name == 'conv_general_dilated':
      kernel = eqn.invars[1].aval.shape
      features = eqn.params['dimension_numbers'].rhs_spec[0]
      count += 2 * out.size * (math.prod(kernel) // kernel[features])
    elif name == 'while':
      raise ValueError(
        'a while loop of unknown length: count its rounds as a scan, or cost '
        'the parts around it'
      )
    elif name == 'cond':
      count += max(map(_flops, jaxprs.inner(eqn)))
    elif name != 'custom_linear_solve':  # a solve is not a product
      times = eqn.params['length'] if name == 'scan' else 1
      count += times * sum(map(_flops, jaxprs.inner(eqn)))
  return count
