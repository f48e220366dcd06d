"""Routes: a network assembled from blocks of others, with adapters between."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

import jax

from wsl import tree
from wsl.stitch import _adapter, _segmented


class Piece(NamedTuple):
  """The blocks ``start, ..., stop - 1`` of one network.

  Attributes:
    model: the name of the network in the family.
    start: the first position, 0 after the embedding.
    stop: the last position; the depth before the head.
  """

  model: str
  start: int
  stop: int


class Route(NamedTuple):
  """A network made of pieces of other networks; static and hashable.

  It has the embedding of the first piece's network and the head of the last
  one's.

  Attributes:
    pieces: one or more, in order of execution.
    adapters: the name of the adapter after each piece except the last; ``''``
      for none.

  Example:
    >>> route = Route((Piece('a', 0, 2), Piece('b', 1, 3)), ('a2-b1',))
    >>> [piece.model for piece in route.pieces]
    ['a', 'b']
  """

  pieces: tuple[Piece, ...]
  adapters: tuple[str, ...] = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Family:
  """Networks and the adapters between them: one pytree for many routes.

  Attributes:
    models: networks by name.
    adapters: adapters by name.
  """

  models: Mapping[str, _segmented.Segmented]
  adapters: Mapping[str, _adapter.Adapter]


def materialize(family: Family, route: Route) -> _segmented.Segmented:
  """Returns the network of one route.

  Args:
    family: networks and adapters.
    route: the pieces and the adapters between them.

  Returns:
    A network with a tuple of blocks. Each adapter is a block of its own and is
    counted in the positions.

  Raises:
    ValueError: as ``check_route``, except for shapes.
  """
  check_cover(family, route)
  blocks: list[Any] = []
  for i, piece in enumerate(route.pieces):
    if i and route.adapters[i - 1]:
      blocks.append(
        (_adapter.apply_adapter, family.adapters[route.adapters[i - 1]])
      )
    model = family.models[piece.model]
    blocks += [
      (_segmented.block_fn(model, j), _segmented.block_params(model, j))
      for j in range(piece.start, piece.stop)
    ]
  first = family.models[route.pieces[0].model]
  last = family.models[route.pieces[-1].model]
  params = {
    'embed': first.params['embed'],
    'blocks': tuple(params for _, params in blocks),
    'head': last.params['head'],
  }
  return _segmented.Segmented(
    params, first.embed, tuple(fn for fn, _ in blocks), last.head
  )


def stitch(
  a: _segmented.Segmented,
  b: _segmented.Segmented,
  *,
  route: Route,
  adapters: Mapping[str, _adapter.Adapter],
) -> _segmented.Segmented:
  """Stitches two networks: ``materialize`` for the family ``{'a', 'b'}``.

  Args:
    a: the network named ``'a'`` in the route.
    b: the network named ``'b'`` in the route.
    route: pieces of both.
    adapters: adapters by their names in the route.

  Returns:
    A network with a tuple of blocks.

  Raises:
    ValueError: as ``check_route``, except for shapes.
  """
  return materialize(Family({'a': a, 'b': b}, dict(adapters)), route)


def check_route(family: Family, route: Route, inputs: Any) -> None:
  """Checks that a route is a valid network, without running it.

  Args:
    family: networks and adapters.
    route: the route to check.
    inputs: a batch, or its shapes (``jax.ShapeDtypeStruct``).

  Raises:
    ValueError: naming the piece, if a network, block or adapter is unknown; if
      the first piece does not start at the embedding or the last does not end
      at the head; if blocks of a network repeat or run backwards; or if an
      adapter does not map the shape of one position to that of the next.
  """
  check_cover(family, route)
  shapes: dict[str, Any] = {}
  for piece in route.pieces:
    if piece.model not in shapes:
      model = family.models[piece.model]
      shapes[piece.model] = jax.eval_shape(_segmented.features, model, inputs)
  for i, name in enumerate(route.adapters):
    left, right = route.pieces[i : i + 2]
    have = shapes[left.model][left.stop]
    want = shapes[right.model][right.start]
    place = (
      f"piece {i} ('{left.model}' at {left.stop}) to piece {i + 1} "
      f"('{right.model}' at {right.start})"
    )
    check_join(family, name, have, want, place)


def check_join(
  family: Family, name: str, have: Any, want: Any, place: str
) -> None:
  """Checks that an adapter maps one shape to another.

  Args:
    family: contains the adapter.
    name: its name, ``''`` for none.
    have: the adapter's input, or its shape.
    want: the input of the next block, or its shape.
    place: the position in the route, for the error message.

  Raises:
    ValueError: if it does not.
  """
  given, by = have, 'without adapter'
  if name:
    by = f"adapter '{name}' returns"
    try:
      given = jax.eval_shape(
        _adapter.apply_adapter, family.adapters[name], have
      )
    except (ValueError, TypeError) as error:
      raise ValueError(
        f"{place}: adapter '{name}' does not accept {have.shape}: "
        f'{str(error).splitlines()[0]}'
      ) from None
  if given.shape != want.shape:
    raise ValueError(
      f'{place}: {by} {given.shape}, the next block expects {want.shape}: fit '
      'an adapter for these positions'
    )


def check_cover(family: Family, route: Route) -> None:
  """Checks names, positions and order; ``check_route`` without the shapes."""
  pieces = route.pieces
  if not pieces:
    raise ValueError('a route without pieces: give one or more')
  if len(route.adapters) != len(pieces) - 1:
    raise ValueError(
      f'{len(pieces)} pieces with {len(route.adapters)} adapters: give one '
      "for each change of pieces, '' for none"
    )
  for name in route.adapters:
    if name and name not in family.adapters:
      hint = tree.nearest(name, list(family.adapters))
      raise ValueError(f"no adapter '{name}' in the family{hint}")
  left: dict[str, int] = {}
  for i, (name, start, stop) in enumerate(pieces):
    if name not in family.models:
      hint = tree.nearest(name, list(family.models))
      raise ValueError(f"piece {i}: no model '{name}' in the family{hint}")
    depth = family.models[name].depth
    place = f"piece {i} ('{name}', {start}..{stop})"
    if not 0 <= start <= stop <= depth:
      raise ValueError(
        f'{place}: expected 0 <= start <= stop <= {depth}, the depth'
      )
    if start < left.get(name, 0):
      raise ValueError(
        f"{place}: runs backwards, an earlier piece of '{name}' stops at "
        f'{left[name]}: start there or later'
      )
    left[name] = stop
    if i == 0 and start:
      raise ValueError(f'{place}: the first piece starts at 0, the embedding')
    if i == len(pieces) - 1 and stop != depth:
      raise ValueError(f'{place}: the last piece ends at {depth}, the head')
