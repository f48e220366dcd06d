"""The route spaces of SN-Net and SN-Netv2."""

import collections

import pytest

from wsl import stitch

THREE = {'tiny': 12, 'small': 12, 'base': 12}
FAMILIES = [
  (stitch.sn_net_routes, {'a': 12, 'b': 12}),
  (stitch.sn_net_routes, {'a': 12, 'b': 24}),
  (stitch.sn_net_routes, {'a': 9, 'b': 6}),
  (stitch.sn_net_v2_routes, {'a': 12, 'b': 12}),
  (stitch.sn_net_v2_routes, {'a': 12, 'b': 24}),
  (stitch.sn_net_v2_routes, {'a': 3, 'b': 9}),
]


def test_routes_selects_the_family_by_hops():
  two = {'a': 12, 'b': 24}
  assert stitch.routes(THREE) == stitch.sn_net_routes(THREE)
  assert stitch.routes(two, hops=2) == stitch.sn_net_v2_routes(two)
  with pytest.raises(ValueError, match='expected 1 or 2'):
    stitch.routes(two, hops=3)


def kinds(routes):
  """Counts routes by their sequence of networks."""
  return collections.Counter(
    '-'.join(piece.model for piece in route.pieces) for route in routes
  )


def pairs(routes):
  """Returns (last block before, first block after) of routes of one hop."""
  return [
    (r.pieces[0].stop - 1, r.pieces[1].start) for r in routes if r.adapters
  ]


def test_the_paper_s_count_for_three_anchors_of_equal_depth():
  routes = stitch.sn_net_routes(THREE)
  assert len(routes) == 71
  assert kinds(routes) == {
    **{'tiny': 1, 'small': 1, 'base': 1},
    **{'tiny-small': 34, 'small-base': 34},
  }
  used = [name for route in routes for name in route.adapters]
  assert len(set(used)) == 22


def test_a_window_of_two():
  routes = stitch.sn_net_routes({'a': 3, 'b': 3})
  expected = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)]
  assert pairs(routes) == expected
  adapters = [r.adapters[0] for r in routes[2:]]
  assert adapters == ['a_b_0'] * 4 + ['a_b_1'] * 3


@pytest.mark.parametrize('depth', [2, 7, 12])
@pytest.mark.parametrize(('window', 'stride'), [(1, 1), (2, 1), (3, 2), (4, 4)])
def test_windows_by_definition(depth, window, stride):
  found = stitch.sn_net_routes(
    {'a': depth, 'b': depth}, window=window, stride=stride
  )
  wanted = {
    (j, k)
    for j in range(depth)
    for k in range(depth)
    if any(
      first <= min(j, k) and max(j, k) < first + window
      for first in range(0, depth, stride)
    )
  }
  assert sorted(pairs(found)) == sorted(wanted)


def test_without_deeper_networks_only_later_blocks_follow():
  kept = stitch.sn_net_routes(THREE, deeper=False)
  assert len(kept) == 3 + 2 * 11
  assert all(j < k for j, k in pairs(kept))
  assert set(kept) < set(stitch.sn_net_routes(THREE))


def test_unequal_depths_pair_nearest_blocks():
  routes = stitch.sn_net_routes({'a': 2, 'b': 4})
  assert pairs(routes) == [(0, 1), (1, 2), (1, 3)]
  assert [r.adapters[0] for r in routes[2:]] == ['a_b_0', 'a_b_1', 'a_b_1']
  routes = stitch.sn_net_routes({'a': 12, 'b': 24})
  assert len(routes) == 2 + 23
  assert len({r.adapters for r in routes[2:]}) == 12


@pytest.mark.parametrize('large', [12, 24])
def test_the_paper_s_count_for_two_hops(large):
  depths = {'s': 12, 'l': large}
  routes = stitch.sn_net_v2_routes(depths)
  assert len(routes) == 135
  assert kinds(routes) == {
    **{'s': 1, 'l': 1, 's-l': 12, 'l-s': 11, 'l-s-l': 55, 's-l-s': 55},
  }
  assert len({name for route in routes for name in route.adapters}) == 23
  assert kinds(stitch.sn_net_v2_routes(depths, hops=1)).total() == 25
  sampled = stitch.sn_net_v2_routes(depths, last=False)
  (dropped,) = set(routes) - set(sampled)
  assert dropped.pieces == (('s', 0, 12), ('l', large, large))


def test_stitches_enter_at_the_paper_s_blocks():
  routes = stitch.sn_net_v2_routes({'s': 12, 'l': 24}, hops=1)
  up = [r for r in routes if [p.model for p in r.pieces] == ['s', 'l']]
  down = [r for r in routes if [p.model for p in r.pieces] == ['l', 's']]
  assert pairs(up) == [(i, 2 * (i + 1)) for i in range(12)]
  assert pairs(down) == [(i, i // 2 + 1) for i in range(1, 23, 2)]


@pytest.mark.parametrize(('constructor', 'depths'), FAMILIES)
def test_routes_have_each_block_at_most_once_and_in_order(constructor, depths):
  routes = constructor(depths)
  assert len(set(routes)) == len(routes)
  for route in routes:
    assert route.pieces[0].start == 0
    assert route.pieces[-1].stop == depths[route.pieces[-1].model]
    assert len(route.adapters) == len(route.pieces) - 1
    for name, depth in depths.items():
      blocks = [
        i
        for piece in route.pieces
        if piece.model == name
        for i in range(piece.start, piece.stop)
      ]
      assert blocks == sorted(set(blocks))
      assert not blocks or blocks[-1] < depth


@pytest.mark.parametrize(('constructor', 'depths'), FAMILIES)
def test_an_adapter_serves_one_pair_of_networks_in_one_direction(
  constructor, depths
):
  ends = collections.defaultdict(set)
  for route in constructor(depths):
    for name, (a, b) in zip(
      route.adapters, zip(route.pieces, route.pieces[1:])
    ):
      ends[name].add((a.model, b.model))
  assert all(len(pair) == 1 for pair in ends.values())


def test_errors():
  with pytest.raises(ValueError, match='no anchors'):
    stitch.sn_net_routes({})
  with pytest.raises(ValueError, match='window=0: expected 1 or more'):
    stitch.sn_net_routes(THREE, window=0)
  with pytest.raises(ValueError, match='3 anchors and hops=2: expected two'):
    stitch.sn_net_v2_routes(THREE)
  with pytest.raises(ValueError, match="depth 24 of 'l' is no multiple of"):
    stitch.sn_net_v2_routes({'s': 10, 'l': 24})
