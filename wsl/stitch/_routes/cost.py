"""Parameters and FLOPs of routes, as sums over their parts."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax

from wsl import stats
from wsl.stitch import _adapter, _segmented
from wsl.stitch._routes import routing


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

  embed: dict[str, stats.Cost]
  blocks: dict[str, tuple[stats.Cost, ...]]
  head: dict[str, stats.Cost]
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
    embed[name] = stats.cost(model.embed, params['embed'], inputs)
    blocks[name] = _blocks(model, shapes[name])
    head[name] = stats.cost(model.head, params['head'], shapes[name][-1])
  adapters = jax.eval_shape(dict, family.adapters)
  return Costs(embed, blocks, head, shapes, adapters)


def route_cost(costs: Costs, route: routing.Route) -> stats.Cost:
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


def adapter_cost(costs: Costs, name: str, piece: routing.Piece) -> stats.Cost:
  """Returns the cost of an adapter that follows a piece."""
  adapter = dataclasses.replace(costs.adapters[name], ridge=None)
  shape = costs.shapes[piece.model][piece.stop]
  return stats.cost(_adapter.apply_adapter, adapter, shape)


def total(parts: list[stats.Cost]) -> stats.Cost:
  """Sums costs."""
  return stats.Cost(*(sum(column) for column in zip(*parts)))


def _blocks(
  model: _segmented.Segmented, shapes: tuple[jax.ShapeDtypeStruct, ...]
) -> tuple[stats.Cost, ...]:
  """Returns the cost of each block; stacked ones have that of the first."""
  found = []
  for i in range(1 if model.stacked else model.depth):
    one = jax.eval_shape(
      functools.partial(_segmented.block_params, index=i), model
    )
    found.append(stats.cost(_segmented.block_fn(model, i), one, shapes[i]))
  return tuple(found) * (model.depth if model.stacked else 1)
