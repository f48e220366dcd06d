"""Routes: which blocks of which networks, and the adapters between them."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

import jax

from wsl import tree
from wsl.stitch import _adapter, _segmented


class Piece(NamedTuple):
  """The blocks ``start, ..., stop - 1`` of one network.

  Attributes:
    model: its name in the family.
    start: the position at which the route enters, 0 at the embedding.
    stop: the position at which it leaves, the depth at the head.
  """

  model: str
  start: int
  stop: int


class Route(NamedTuple):
  """A network made of pieces of others; static and hashable.

  The first piece brings its network's embedding, the last one its head.

  Attributes:
    pieces: one or more, in the order in which they run.
    adapters: the name of the adapter after each piece but the last; ``''``
      hands the value on as it is.

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
  """Networks and the adapters between them: many networks in one pytree.

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
    A network with a tuple of blocks; the adapters are blocks of their own, so
    its positions count them.

  Raises:
    ValueError: as ``check_route``, but for shapes.
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
    a: the network that the route calls ``'a'``.
    b: the one that it calls ``'b'``.
    route: pieces of both.
    adapters: by the names that the route uses.

  Returns:
    A network with a tuple of blocks.

  Raises:
    ValueError: as ``check_route``, but for shapes.
  """
  return materialize(Family({'a': a, 'b': b}, dict(adapters)), route)


def check_route(family: Family, route: Route, inputs: Any) -> None:
  """Checks that a route is a network, without running it.

  Args:
    family: networks and adapters.
    route: the route to check.
    inputs: a batch, or its shapes (``jax.ShapeDtypeStruct``).

  Raises:
    ValueError: naming the piece, if a network, block or adapter is unknown, if
      the first piece does not start at the embedding or the last not end at the
      head, if a network's blocks are taken twice or backwards, or if an adapter
      does not take and give the shapes of the positions that it joins.
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
    family: holds the adapter.
    name: its name, ``''`` for none.
    have: the array that it is given, or its shape.
    want: the array that the next block takes, or its shape.
    place: where, for the message.

  Raises:
    ValueError: if it does not.
  """
  given, by = have, 'without adapter'
  if name:
    by = f"adapter '{name}' gives"
    try:
      given = jax.eval_shape(
        _adapter.apply_adapter, family.adapters[name], have
      )
    except (ValueError, TypeError) as error:
      raise ValueError(
        f"{place}: adapter '{name}' does not take {have.shape}: "
        f'{str(error).splitlines()[0]}'
      ) from None
  if given.shape != want.shape:
    raise ValueError(
      f'{place}: {by} {given.shape}, the next block takes {want.shape}: fit an '
      'adapter for these positions'
    )


def check_cover(family: Family, route: Route) -> None:
  """Checks all of ``check_route`` but the shapes."""
  pieces = route.pieces
  if not pieces:
    raise ValueError('a route without pieces: give one or more')
  if len(route.adapters) != len(pieces) - 1:
    raise ValueError(
      f'{len(pieces)} pieces with {len(route.adapters)} adapters: give one '
      "between each two, '' for none"
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
        f"{place}: goes backwards, '{name}' was left at {left[name]}: start "
        'there or later'
      )
    left[name] = stop
    if i == 0 and start:
      raise ValueError(f'{place}: the first piece starts at 0, the embedding')
    if i == len(pieces) - 1 and stop != depth:
      raise ValueError(f'{place}: the last piece ends at {depth}, the head')
