"""Routes of a family: small networks begin, larger ones end (SN-Net)."""

from collections.abc import Iterator, Mapping
import itertools

from wsl.stitch._routes import routing


def routes(
  depths: Mapping[str, int], *, hops: int = 1, window: int = 2, stride: int = 1
) -> tuple[routing.Route, ...]:
  """Lists the networks that anchors become when they are stitched.

  One hop is SN-Net (``sn_net_routes``): a less complex network begins, the next
  one ends. Two hops are SN-Netv2 (``sn_net_v2_routes``): two networks, there
  and back. Any other family is a tuple of ``Route`` written by hand.

  Args:
    depths: blocks of every anchor by name, from the least complex to the most;
      two anchors for two hops.
    hops: stitches in a route at most, 1 or 2.
    window: of one hop, see ``sn_net_routes``.
    stride: likewise.

  Returns:
    The anchors, then what is stitched.

  Raises:
    ValueError: if there are not 1 or 2 hops, or as the two functions.

  Example:
    >>> len(routes({'tiny': 12, 'small': 12, 'base': 12}))
    71
    >>> len(routes({'small': 12, 'large': 24}, hops=2))
    135

  Reference:
    Pan et al., "Stitchable Neural Networks", 2023, arXiv:2302.06586; "Stitched
    ViTs are Flexible Vision Backbones", 2023, arXiv:2307.00154.
  """
  if hops == 1:
    return sn_net_routes(depths, window=window, stride=stride)
  if hops == 2:
    return sn_net_v2_routes(depths)
  raise ValueError(f'routes(hops={hops}): expected 1 or 2')


def sn_net_routes(
  depths: Mapping[str, int],
  *,
  window: int = 2,
  stride: int = 1,
  deeper: bool = True,
) -> tuple[routing.Route, ...]:
  """Lists the networks of a stitchable family: anchors, and one stitch each.

  Only neighbours in complexity are stitched, the less complex one in front.
  Blocks 0 .. j of the front are followed by blocks k .. D - 1 of the end.

  *Equal depths.* A window of blocks slides over both networks; inside it every
  j meets every k. Pairs that are new in a window share one adapter.

  *Unequal depths.* Every end block i has the front block ``floor(i D_front /
  D_end)`` (nearest interpolation), which it follows if its own number is
  greater. Stitches that leave one front block share one adapter.

  Args:
    depths: blocks of every anchor by name, from the least complex to the most.
    window: blocks in a window; equal depths only.
    stride: blocks from one window to the next; equal depths only.
    deeper: whether to keep k <= j, a network with more blocks than its end has
      (the paper's DeiT does, its Swin does not); equal depths only.

  Returns:
    The anchors, then the stitches of each pair of neighbours. Three anchors of
    depth 12 give 3 + 2 * 34 routes, with 11 adapters for each pair.

  Raises:
    ValueError: if there are no anchors, or a number is below 1.

  Example:
    >>> routes = sn_net_routes({'tiny': 12, 'small': 12, 'base': 12})
    >>> len(routes), len({name for r in routes for name in r.adapters})
    (71, 22)
    >>> [(p.model, p.start, p.stop) for p in routes[4].pieces]
    [('tiny', 0, 1), ('small', 1, 12)]

  Reference:
    Pan et al., "Stitchable Neural Networks", 2023, arXiv:2302.06586.

  Differs from the official code, whose stitched DeiTs skip the final
  normalisation: here the last piece brings its whole head. That code also gives
  every pair of anchors as many adapters as the first pair needs, and knows
  which anchors are neighbours for three of them only.
  """
  _check(depths, window=window, stride=stride)
  routes = [_anchor(name, depth) for name, depth in depths.items()]
  names = list(depths)
  for front, end in itertools.pairwise(names):
    if depths[front] == depths[end]:
      pairs = _paired(depths[front], window, stride)
    else:
      pairs = _unpaired(depths[front], depths[end])
    for j, k, adapter in pairs:
      if deeper or j < k or depths[front] != depths[end]:
        routes.append(
          routing.Route(
            (
              routing.Piece(front, 0, j + 1),
              routing.Piece(end, k, depths[end]),
            ),
            (f'{front}_{end}_{adapter}',),
          )
        )
  return tuple(routes)


def sn_net_v2_routes(
  depths: Mapping[str, int], *, hops: int = 2, last: bool = True
) -> tuple[routing.Route, ...]:
  r"""Lists the networks of two anchors stitched both ways, up to two hops.

  With S and L blocks, S <= L and r = L / S: small block i is followed by large
  block (i + 1) r; large block i, every r-th of them before the last, is
  followed by small block ``floor(i / r) + 1``. A second stitch leaves at or
  after the block where the first one landed, so that a network covers each
  block at most once.

  Every stitch has an adapter of its own; all routes that take it share it.

  Args:
    depths: blocks of the two anchors by name, the smaller first; the larger
      depth is a multiple of the smaller.
    hops: stitches in a route at most, 1 or 2.
    last: whether to keep the stitch that leaves the last small block, into the
      head of the large network. The paper's training leaves it out.

  Returns:
    Anchors, small to large, large to small, and with two hops large to small
    to large, and small to large to small: 2 + 12 + 11 + 55 + 55 routes for
    depths 12 and 24 as for 12 and 12.

  Raises:
    ValueError: if there are not two anchors, or their depths do not fit.

  Example:
    >>> len(sn_net_v2_routes({'small': 12, 'large': 24}))
    135
    >>> route = sn_net_v2_routes({'s': 2, 'l': 4})[-1]
    >>> [(p.model, p.start, p.stop) for p in route.pieces]
    [('l', 0, 2), ('s', 1, 2)]

  Reference:
    Pan et al., "Stitched ViTs are Flexible Vision Backbones", 2023,
    arXiv:2307.00154.

  Differs from the official code, which leaves odd large blocks whatever the
  ratio of depths, and leaves out of training the stitch after small block 11.
  They agree for depths 12 and 24, and 12 and 12.
  """
  _check(depths)
  if len(depths) != 2 or hops not in (1, 2):
    raise ValueError(
      f'sn_net_v2_routes: {len(depths)} anchors and hops={hops}: expected two '
      'anchors, and 1 or 2 hops'
    )
  (small, s), (large, n) = depths.items()
  if n % s:
    raise ValueError(
      f"sn_net_v2_routes: depth {n} of '{large}' is no multiple of depth {s} "
      f"of '{small}': give the shallower first, and a depth it divides"
    )
  r = n // s
  up = {i: (i + 1) * r for i in range(s)}
  down = {i: i // r + 1 for i in range(r - 1, n - 1, r)}
  routes = [_anchor(small, s), _anchor(large, n)]
  routes += [_hop(small, large, (i,), (up,), n) for i in up]
  routes += [_hop(large, small, (i,), (down,), s) for i in down]
  if hops == 2:
    routes += _twice(large, small, down, up, n)
    routes += _twice(small, large, up, down, s)
  edge = f'{small}_{large}_{s - 1}'
  return tuple(x for x in routes if last or edge not in x.adapters)


def _check(depths: Mapping[str, int], **numbers: int) -> None:
  if not depths:
    raise ValueError('sn_net_routes: no anchors, at least one is needed')
  for name, value in (*depths.items(), *numbers.items()):
    if value < 1:
      raise ValueError(f'sn_net_routes: {name}={value}: expected 1 or more')


def _anchor(name: str, depth: int) -> routing.Route:
  return routing.Route((routing.Piece(name, 0, depth),), ())


def _paired(
  depth: int, window: int, stride: int
) -> Iterator[tuple[int, int, int]]:
  """Yields (j, k, number of the adapter) as windows first meet them."""
  seen: set[tuple[int, int]] = set()
  adapter = 0
  for first in range(0, depth, stride):
    blocks = range(first, min(first + window, depth))
    new = [(j, k) for j in blocks for k in blocks if (j, k) not in seen]
    for j, k in new:
      yield j, k, adapter
    seen.update(new)
    adapter += bool(new)


def _unpaired(front: int, end: int) -> Iterator[tuple[int, int, int]]:
  """Yields (j, k, number of the adapter), by front block."""
  nearest = [i * front // end for i in range(end)]
  for j in range(front):
    for k, of_end in enumerate(nearest):
      if of_end == j and j < k:
        yield j, k, j


def _hop(
  first: str,
  second: str,
  leaves: tuple[int, ...],
  maps: tuple[Mapping[int, int], ...],
  depth: int,
) -> routing.Route:
  """Returns the route that leaves after these blocks, to and fro.

  Args:
    first: where it begins.
    second: where the first hop leads.
    leaves: the last block before each hop.
    maps: for each hop, from the last block before it to the first after it.
    depth: of the network where it ends.
  """
  pieces, adapters, start = [], [], 0
  names = (first, second, first)
  for hop, (leave, landing) in enumerate(zip(leaves, maps)):
    pieces.append(routing.Piece(names[hop], start, leave + 1))
    adapters.append(f'{names[hop]}_{names[hop + 1]}_{leave}')
    start = landing[leave]
  pieces.append(routing.Piece(names[len(leaves)], start, depth))
  return routing.Route(tuple(pieces), tuple(adapters))


def _twice(
  first: str,
  second: str,
  there: Mapping[int, int],
  back: Mapping[int, int],
  depth: int,
) -> list[routing.Route]:
  """Returns the routes with two hops whose last network has blocks left."""
  return [
    _hop(first, second, (i, j), (there, back), depth)
    for i in there
    for j in back
    if j >= there[i] and back[j] < depth
  ]
