"""One compiled function that runs any route of a family."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import numpy as np

from wsl import types
from wsl.stitch._routes import interpreter, joints, routing


def program(
  family: routing.Family, routes: Sequence[routing.Route]
) -> tuple[
  Callable[[routing.Family, types.Array, Any], types.Array], np.ndarray
]:
  """Returns one function for many routes, which is compiled once.

  A route is encoded as a row of integers, a traced argument; conditionals skip
  the blocks and adapters that are not on it. Stacked blocks run in a scan,
  tuples of blocks are unrolled. The function is differentiable in reverse mode
  with respect to the family and the inputs, so that a loss may sample its route
  from a key. The backward pass recomputes each block instead of storing its
  intermediate values. Features have the dtype that they have in their own
  network.

  Run several rows by ``jax.lax.map`` or a Python loop. Under ``vmap`` over rows
  a conditional computes both branches, on values that may be zeros.

  Args:
    family: networks and adapters; only its structure is used. All networks take
      the same inputs, and the last networks of the routes return outputs of one
      shape.
    routes: R routes of at most K pieces.

  Returns:
    ``apply_fn(family, row, inputs)``, hashable and equal by value, and the rows
    ``[R, K, 4]``, int32.

  Raises:
    ValueError: as ``check_route``; for shapes, when ``apply_fn`` is traced.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stitch
    >>> def same(params, h):
    ...   return h
    >>> def scale(params, h):
    ...   return h * params
    >>> models = {}
    >>> for name, blocks in {'a': [2.0, 3.0], 'b': [5.0, 7.0]}.items():
    ...   params = {'embed': {}, 'blocks': jnp.asarray(blocks), 'head': {}}
    ...   models[name] = stitch.Segmented(params, same, scale, same)
    >>> family = stitch.Family(models, {})
    >>> routes = [
    ...   stitch.Route((stitch.Piece(x, 0, 1), stitch.Piece(y, 1, 2)), ('',))
    ...   for x in 'ab' for y in 'ab']
    >>> apply_fn, rows = program(family, routes)
    >>> [float(apply_fn(family, row, jnp.ones(()))) for row in rows]
    [6.0, 14.0, 15.0, 35.0]
  """
  if not routes:
    raise ValueError('program: no routes given, at least one is needed')
  for route in routes:
    routing.check_cover(family, route)
  joins: dict[interpreter.Join, int] = {}
  for route in routes:
    for join in zip(route.adapters, joints.joints(route), strict=True):
      joins.setdefault(join, len(joins) + 1)
  names = {p.model: None for route in routes for p in route.pieces}
  used = interpreter.Used(
    tuple(names),
    tuple(dict.fromkeys(route.pieces[0].model for route in routes)),
    tuple(dict.fromkeys(route.pieces[-1].model for route in routes)),
    tuple(joins),
  )
  hops = max(len(route.pieces) for route in routes)
  rows = [_row(route, used.models, joins, hops) for route in routes]
  return Program(used), np.asarray(rows, np.int32)


@dataclasses.dataclass(frozen=True)
class Program:
  """A function that runs the route of one row; hashable by what it uses."""

  used: interpreter.Used

  def __call__(
    self, family: routing.Family, row: types.ArrayLike, inputs: Any
  ) -> types.Array:
    """Runs a row ``[K, 4]``."""
    return interpreter.run(self.used, family, row, inputs)


def _row(
  route: routing.Route,
  models: tuple[str, ...],
  joins: dict[interpreter.Join, int],
  hops: int,
) -> list[tuple[int, int, int, int]]:
  """Encodes a route as (join, model, start, stop) per piece, padded.

  Join 0 keeps the value. A padding piece has join 0 and no blocks (start =
  stop); it belongs to the last network, whose head is applied next.
  """
  taken = zip(route.adapters, joints.joints(route), strict=True)
  before = [0, *(joins[join] for join in taken)]
  row = [
    (join, models.index(name), start, stop)
    for join, (name, start, stop) in zip(before, route.pieces, strict=True)
  ]
  return row + [(0, row[-1][1], 0, 0)] * (hops - len(row))
