"""DeRy: partition and reassembly on similarity matrices; NASWOT's score."""

import functools
import itertools

import jax
import numpy as np
import pytest

from wsl import stitch

KEY = jax.random.key(0)


def planted(cuts, noise=0.05, seed=0):
  """Similarities of networks whose nodes are of K kinds, stage by stage."""
  kinds = np.concatenate(
    [np.repeat(np.arange(len(c) - 1), np.diff(c)) for c in cuts]
  )
  s = (kinds[:, None] == kinds[None]).astype(float)
  noise = noise * np.random.RandomState(seed).rand(*s.shape)
  s = 0.9 * s + noise + noise.T
  np.fill_diagonal(s, 1.0)
  return s, {f'n{i}': c[-1] for i, c in enumerate(cuts)}


def random_problem(seed, depths):
  n = sum(depths)
  x = np.random.RandomState(seed).rand(n, n)
  s = (x + x.T) / 2
  np.fill_diagonal(s, 1.0)
  return s, {f'n{i}': d for i, d in enumerate(depths)}


def bounds(found):
  return {
    name: [0, *(p.stop for p in pieces)]
    for name, pieces in found.pieces.items()
  }


def similarity_of(s, depths, b, c):
  """Similarity of two blocks by its definition."""
  if b.model == c.model and b != c:
    return 0.0
  start = dict(zip(depths, np.cumsum([0, *depths.values()])))
  first = s[start[b.model] + b.start, start[c.model] + c.start]
  return first + s[start[b.model] + b.stop - 1, start[c.model] + c.stop - 1]


def test_a_planted_partition_is_recovered():
  cuts = [[0, 3, 4, 8], [0, 1, 5, 7], [0, 2, 4, 6]]
  s, depths = planted(cuts)
  found = stitch.partition(s, depths, count=3, slack=0.4, key=KEY, restarts=30)
  assert list(bounds(found).values()) == cuts
  assert len(set(found.groups.values())) == 1
  assert sorted(found.groups['n0']) == [0, 1, 2]


@pytest.mark.parametrize('seed', range(4))
def test_the_result_is_a_partition(seed):
  s, depths = random_problem(seed, (7, 4, 9))
  key = jax.random.key(seed)
  found = stitch.partition(s, depths, count=3, restarts=4, key=key)
  for name, pieces in found.pieces.items():
    # Every node is in exactly one block, and block sizes are within bounds.
    nodes = [i for p in pieces for i in range(p.start, p.stop)]
    assert nodes == list(range(depths[name]))
    most = int(-(-depths[name] // 3) * 1.2)
    assert all(1 <= p.stop - p.start <= most for p in pieces)
    assert {p.model for p in pieces} == {name}
  blocks = [b for pieces in found.pieces.values() for b in pieces]
  groups = [g for own in found.groups.values() for g in own]
  for g, centre in enumerate(found.centres):
    assert groups[blocks.index(centre)] == g
  # The similarity is the defined sum, and every accepted move raised it.
  total = sum(
    similarity_of(s, depths, b, found.centres[g])
    for b, g in zip(blocks, groups)
  )
  assert abs(total - found.similarity) < 1e-9
  assert found.history[-1] == found.similarity
  assert (np.diff(found.history) > 0).all()


def exhaustive_best(s, depths, count, most):
  cuts = []
  for name, depth in depths.items():
    inner = itertools.combinations(range(1, depth), count - 1)
    rows = [(0, *c, depth) for c in inner]
    rows = [r for r in rows if max(np.diff(r)) <= most[name]]
    cuts.append(
      [
        [stitch.Piece(name, a, b) for a, b in itertools.pairwise(r)]
        for r in rows
      ]
    )
  best = -np.inf
  for choice in itertools.product(*cuts):
    blocks = [b for row in choice for b in row]
    for centres in itertools.combinations(blocks, count):
      # A block has the best centre, but a centre stays in its own group.
      total = sum(
        similarity_of(s, depths, b, b)
        if b in centres
        else max(similarity_of(s, depths, b, c) for c in centres)
        for b in blocks
      )
      best = max(best, total)
  return best


@pytest.mark.parametrize('seed', range(5))
def test_it_finds_the_optimum_of_an_exhaustive_search(seed):
  s, depths = random_problem(seed, (4, 5))
  found = stitch.partition(s, depths, count=2, slack=0.5, key=KEY, restarts=60)
  most = {'n0': 3, 'n1': 4}
  assert abs(found.similarity - exhaustive_best(s, depths, 2, most)) < 1e-9


def test_a_key_determines_the_partition():
  s, depths = random_problem(1, (8, 8))
  one = stitch.partition(s, depths, count=4, restarts=3, key=jax.random.key(5))
  assert one == stitch.partition(
    s, depths, count=4, restarts=3, key=jax.random.key(5)
  )


def test_a_seed_still_works_for_one_release(cut):
  s, depths = random_problem(1, (8, 8))
  score = table_score(cut, 0)
  with pytest.warns(DeprecationWarning, match=r'stitch\.partition\(seed=\)'):
    old = stitch.partition(s, depths, count=4, restarts=3, seed=5)
  assert old == stitch.partition(
    s, depths, count=4, restarts=3, key=jax.random.key(5)
  )
  with pytest.warns(DeprecationWarning, match=r'stitch\.reassemble\(seed=\)'):
    stitch.reassemble(cut, score, costs=COSTS, most=[99], seed=5)
  with pytest.raises(TypeError, match=r'stitch\.partition: missing key'):
    stitch.partition(s, depths)
  with pytest.raises(TypeError, match=r'stitch\.reassemble: missing key'):
    stitch.reassemble(cut, score, costs=COSTS, most=[99])


def test_a_group_holds_counterparts_not_neighbours():
  """Similar blocks of one network still get different groups."""
  s = np.kron(np.eye(2), np.ones((3, 3))) + 0.3 * np.kron(
    np.ones((2, 2)) - np.eye(2), np.eye(3)
  )
  found = stitch.partition(s, {'a': 3, 'b': 3}, count=3, key=KEY, restarts=20)
  assert found.groups['a'] == found.groups['b']
  assert sorted(found.groups['a']) == [0, 1, 2]
  # The official code's comparison gives every block but the centres 0.
  np.testing.assert_allclose(found.similarity, 3 * 2 + 3 * 0.6)


COSTS = {
  'n0': np.ones((8, 1)),
  'n1': 2 * np.ones((7, 1)),
  'n2': np.ones((6, 1)),
}


@pytest.fixture(scope='module')
def cut():
  s, depths = planted([[0, 3, 4, 8], [0, 1, 5, 7], [0, 2, 4, 6]])
  return stitch.partition(s, depths, count=3, slack=0.4, key=KEY, restarts=30)


def choices(cut):
  """Every choice of one block for each position and group, and its cost."""
  names = list(cut.pieces)
  for chosen in itertools.product(names, repeat=3):
    groups = [cut.groups[name][k] for k, name in enumerate(chosen)]
    if len(set(groups)) == 3:
      pieces = tuple(cut.pieces[name][k] for k, name in enumerate(chosen))
      yield pieces, sum(COSTS[p.model][p.start : p.stop].sum() for p in pieces)


def table_score(cut, seed):
  scores = np.random.RandomState(seed).rand(27)
  order = {pieces: i for i, (pieces, _) in enumerate(choices(cut))}
  return lambda pieces: scores[order[pieces]]


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize(('least', 'most'), [(0, 99), (0, 8), (9, 11)])
def test_reassembly_is_the_best_within_its_budget(cut, seed, least, most):
  score = table_score(cut, seed)
  found = stitch.reassemble(
    cut, score, key=KEY, costs=COSTS, most=[most], least=[least], restarts=20
  )
  fitting = [p for p, cost in choices(cut) if least <= cost <= most]
  assert found.pieces in fitting
  assert least <= found.cost[0] <= most
  assert sorted(found.groups) == [0, 1, 2]
  assert found.score == max(map(score, fitting))
  assert (np.diff(found.history) > 0).all()


def test_consecutive_pieces_satisfy_follows(cut):
  order = {'n0': 0, 'n1': 1, 'n2': 2}
  rises = lambda a, b: order[a.model] <= order[b.model]
  found = stitch.reassemble(
    cut,
    lambda pieces: -order[pieces[-1].model] + order[pieces[0].model],
    key=KEY,
    costs=COSTS,
    most=[99],
    follows=rises,
  )
  assert found.score == 0
  models = [order[p.model] for p in found.pieces]
  assert models == sorted(models)


def test_bad_input_is_refused(cut):
  s, depths = random_problem(0, (4, 5))
  cases = [
    ((s[:8, :8], depths), {}, r'similarity is \[8, 8\].* 9: expected \[9, 9\]'),
    ((s + np.triu(s), depths), {}, 'finite and symmetric'),
    ((s * np.nan, depths), {}, 'finite and symmetric'),
    (
      (s, depths),
      {'count': 5},
      r"count=5: expected 1 \.\. 4, the depth of 'n0'",
    ),
    ((s, depths), {'slack': -1}, 'slack=-1'),
    ((s, depths), {'restarts': 0}, 'restarts=0'),
  ]
  for operands, options, message in cases:
    with pytest.raises(ValueError, match=message):
      stitch.partition(*operands, key=KEY, **options)
  reassemble = functools.partial(
    stitch.reassemble, cut, lambda pieces: 1.0, key=KEY
  )
  with pytest.raises(ValueError, match=r'costs \[0\.0\] \.\. \[2\.0\]: widen'):
    reassemble(costs=COSTS, most=[2])
  with pytest.raises(ValueError, match="costs has no 'n1'"):
    reassemble(costs={'n0': COSTS['n0']}, most=[2])
  with pytest.raises(ValueError, match=r"'n0' are \[8, 1\]: expected \[8, 2\]"):
    reassemble(costs=COSTS, most=[2, 2])


def test_naswot_counts_the_units_that_agree():
  x = np.random.RandomState(0).randn(4, 2, 5)
  y = np.random.RandomState(1).randn(4, 30)
  codes = np.concatenate([x.reshape(4, -1), y], 1) > 0
  agree = np.array([[(a == b).sum() for b in codes] for a in codes])
  want = np.log(abs(np.linalg.det(agree.astype(float))))
  np.testing.assert_allclose(stitch.naswot([x, y]), want, rtol=1e-12)
  half = stitch.naswot([x.astype(np.float32), y.astype(np.float16)])
  np.testing.assert_allclose(half, want, rtol=1e-4)
  assert half.dtype == np.float32
  assert stitch.naswot([np.ones((2, 3))]) == -np.inf
  with pytest.raises(ValueError, match=r'arrays of \[4, 3\] examples'):
    stitch.naswot([x, y[:3]])
