"""The route spaces of SN-Net (one stitch) and SN-Netv2 (up to two)."""

from collections.abc import Iterator, Mapping
import itertools

from wsl.stitch._routes import routing


def sn_net_routes(
  depths: Mapping[str, int],
  *,
  window: int = 2,
  stride: int = 1,
  deeper: bool = True,
) -> tuple[routing.Route, ...]:
  """Lists the routes of SN-Net: anchors, and routes with one stitch.

  Stitches connect neighbours in complexity, from the less complex anchor to the
  more complex one: blocks 0 .. j of the first, then blocks k .. D - 1 of the
  second.

  *Equal depths.* A window of block indices slides over both networks and
  contributes all its pairs (j, k). Pairs that are new in one window share an
  adapter.

  *Unequal depths.* Block k of the second network is paired with block
  ``j = floor(k D_1 / D_2)`` of the first (nearest interpolation); pairs with
  j < k are kept. Pairs with equal j share an adapter.

  Args:
    depths: number of blocks of each anchor by name, from the least complex
      anchor to the most.
    window: number of blocks in a window; equal depths only.
    stride: number of blocks between windows; equal depths only.
    deeper: whether to keep pairs with k <= j, whose network has more blocks
      than its anchors (as the paper's DeiT, unlike its Swin); equal depths
      only.

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

  Differs from the official code: its stitched DeiTs skip the final
  normalisation, where a route here ends in the whole head of its last network;
  it allocates as many adapters to each pair of anchors as the first pair needs;
  and it defines neighbours for three anchors only.
  """
  _check(depths, window=window, stride=stride)
  routes = [_anchor(name, depth) for name, depth in depths.items()]
  names = list(depths)
  for front, end in itertools.pairwise(names):
    if depths[front] == depths[end]:
      pairs = _window_pairs(depths[front], window, stride)
    else:
      pairs = _nearest_pairs(depths[front], depths[end])
    for j, k, adapter in pairs:
      if deeper or j < k or depths[front] != depths[end]:
        last = routing.Piece(end, k, depths[end])
        pieces = (routing.Piece(front, 0, j + 1), last)
        routes.append(routing.Route(pieces, (f'{front}_{end}_{adapter}',)))
  return tuple(routes)


def sn_net_v2_routes(
  depths: Mapping[str, int], *, hops: int = 2, last: bool = True
) -> tuple[routing.Route, ...]:
  r"""Lists the routes of SN-Netv2: two anchors, stitched in both directions.

  With depths S <= L and r = L / S: small block i is followed by large block
  (i + 1) r. Large block i, the last of each group of r except the final group,
  is followed by small block ``floor(i / r) + 1``. A second stitch leaves at or
  after the block at which the first one entered, so that a route contains each
  block at most once.

  Every stitch has its own adapter, shared by all routes that contain it.

  Args:
    depths: number of blocks of the two anchors by name, the smaller first; the
      larger depth is a multiple of the smaller.
    hops: maximal number of stitches in a route, 1 or 2.
    last: whether to keep the stitch from the last small block to the head of
      the large network. The paper's training omits it.

  Returns:
    Anchors, small to large, large to small; with two hops also large to small
    to large, and small to large to small: 2 + 12 + 11 + 55 + 55 routes for
    depths 12 and 24, and for 12 and 12.

  Raises:
    ValueError: if there are not two anchors, or the larger depth is not a
      multiple of the smaller.

  Example:
    >>> len(sn_net_v2_routes({'small': 12, 'large': 24}))
    135
    >>> route = sn_net_v2_routes({'s': 2, 'l': 4})[-1]
    >>> [(p.model, p.start, p.stop) for p in route.pieces]
    [('l', 0, 2), ('s', 1, 2)]

  Reference:
    Pan et al., "Stitched ViTs are Flexible Vision Backbones", 2023,
    arXiv:2307.00154.

  Differs from the official code, which stitches after odd large blocks whatever
  the ratio of depths, and omits the stitch after small block 11 in training.
  Both agree for depths 12 and 24, and 12 and 12.
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
  routes += [_stitched(small, large, (i,), (up,), n) for i in up]
  routes += [_stitched(large, small, (i,), (down,), s) for i in down]
  # Counts for S = 12, any r. Up enters at r, 2r, .., 12r (12 stitches), down at
  # 1, .., 11 (11). Large-small-large: down enters at m, up leaves at j with
  # m <= j <= 10, which is 11 - m routes, in total 10 + 9 + .. + 0 = 55.
  # Small-large-small: by the same sum, 55. The total is 2 + 23 + 110 = 135.
  if hops == 2:
    routes += _two_hops(large, small, down, up, n)
    routes += _two_hops(small, large, up, down, s)
  edge = f'{small}_{large}_{s - 1}'
  return tuple(x for x in routes if last or edge not in x.adapters)


def _check(depths: Mapping[str, int], **numbers: int) -> None:
  """Checks that there are anchors and that all numbers are positive."""
  if not depths:
    raise ValueError('sn_net_routes: no anchors, at least one is needed')
  for name, value in (*depths.items(), *numbers.items()):
    if value < 1:
      raise ValueError(f'sn_net_routes: {name}={value}: expected 1 or more')


def _anchor(name: str, depth: int) -> routing.Route:
  """Returns the route of a whole network."""
  return routing.Route((routing.Piece(name, 0, depth),), ())


def _window_pairs(
  depth: int, window: int, stride: int
) -> Iterator[tuple[int, int, int]]:
  """Yields (j, k, adapter index), by the first window that has the pair."""
  # Window 2 and stride 1 give |j - k| <= 1: D + 2 (D - 1) = 3 D - 2 pairs, 34
  # for D = 12. Each of the D - 1 full windows has new pairs, so 11 adapters.
  seen: set[tuple[int, int]] = set()
  adapter = 0
  for first in range(0, depth, stride):
    blocks = range(first, min(first + window, depth))
    new = [(j, k) for j in blocks for k in blocks if (j, k) not in seen]
    for j, k in new:
      yield j, k, adapter
    seen.update(new)
    adapter += bool(new)


def _nearest_pairs(front: int, end: int) -> Iterator[tuple[int, int, int]]:
  """Yields (j, k, adapter index) for the nearest front block j of each k."""
  nearest = [i * front // end for i in range(end)]
  for j in range(front):
    for k, of_end in enumerate(nearest):
      if of_end == j and j < k:
        yield j, k, j


def _stitched(
  first: str,
  second: str,
  leaves: tuple[int, ...],
  maps: tuple[Mapping[int, int], ...],
  depth: int,
) -> routing.Route:
  """Returns the route that alternates between two networks.

  Hop h leaves after block ``leaves[h]`` and enters at ``maps[h][leaves[h]]``;
  ``depth`` is that of the last network.
  """
  pieces, adapters, start = [], [], 0
  names = (first, second, first)
  for hop, (leave, entry) in enumerate(zip(leaves, maps)):
    pieces.append(routing.Piece(names[hop], start, leave + 1))
    adapters.append(f'{names[hop]}_{names[hop + 1]}_{leave}')
    start = entry[leave]
  pieces.append(routing.Piece(names[len(leaves)], start, depth))
  return routing.Route(tuple(pieces), tuple(adapters))


def _two_hops(
  first: str,
  second: str,
  there: Mapping[int, int],
  back: Mapping[int, int],
  depth: int,
) -> list[routing.Route]:
  """Returns the routes with two hops that end in at least one block."""
  return [
    _stitched(first, second, (i, j), (there, back), depth)
    for i in there
    for j in back
    if j >= there[i] and back[j] < depth
  ]
