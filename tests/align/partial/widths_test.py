"""Widths under a budget, against exhaustive search on a grid."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, stats, types

F = align.Factor


def one(*names):
  return tuple(((name,),) for name in names)


def chain(sizes):
  """Returns a chain of dense maps whose first and last axes are pinned."""
  last = len(sizes) - 1
  factors = tuple(
    F(f'g{i}', n, 'an end' if i in (0, last) else '')
    for i, n in enumerate(sizes)
  )
  axes = tuple(
    (f'w{i}', one(f'g{i}', f'g{i + 1}')) for i in range(len(sizes) - 1)
  )
  return align.Symmetry(factors, axes)


def draw(symmetry, seed):
  rng = np.random.default_rng(seed)
  shape = lambda axes: tuple(symmetry.factor[a[0][0]].size for a in axes)
  return {n: jnp.asarray(rng.normal(size=shape(x))) for n, x in symmetry.axes}


def cost(sizes, r):
  """Returns the cost by the formula of the paper, edge by edge."""
  total = 0.0
  for i, (n, m) in enumerate(itertools.pairwise(sizes)):
    p, q = r[i], r[i + 1]
    total += n * m * ((1 + p) * (1 + q) - 2 * p * q)
  return total


@pytest.mark.parametrize('seed', range(3))
def test_the_public_cost_is_the_formula_of_the_paper(seed):
  sizes = [3, 8, 5, 4]
  symmetry = chain(sizes)
  a, b = draw(symmetry, 1), draw(symmetry, 2)
  rng = np.random.default_rng(seed)
  counts = [rng.integers(0, n + 1) for n in sizes[1:-1]]
  r = [k / n for k, n in zip(counts, sizes[1:-1])]
  found = align.partial_cost(
    a, b, symmetry=symmetry, separate={'g1': r[0], 'g2': r[1]}
  )
  wanted = cost(sizes, [0, *r, 0]) / cost(sizes, [0] * 4)
  np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_the_public_cost_is_within_the_budget_and_counts_operations():
  sizes = [3, 8, 5, 4]
  symmetry = chain(sizes)
  a, b = draw(symmetry, 1), draw(symmetry, 2)
  at = lambda separate, **x: align.partial_cost(
    a, b, symmetry=symmetry, separate=separate, **x
  )
  assert at(0.0) == 1
  assert at(1.0) == 2
  for budget in (1.1, 1.5, 1.9):
    kept = align.widths(a, b, symmetry=symmetry, budget=budget)
    assert budget - 0.15 < at(kept) <= budget + 1e-9
  # Rows of each map, for example positions of a convolution.
  rows = {'w0': 10.0, 'w1': 1.0, 'w2': 4.0}
  grams = {
    n: types.Gram(jnp.eye(1)[None], jnp.asarray(c)) for n, c in rows.items()
  }
  r = [0, 0.25, 0.6, 0]
  edges = [
    rows[f'w{i}'] * n * m * ((1 + p) * (1 + q) - 2 * p * q)
    for i, (n, m, p, q) in enumerate(
      zip(sizes, sizes[1:], r, r[1:], strict=False)
    )
  ]
  merged = sum(
    rows[f'w{i}'] * n * m for i, (n, m) in enumerate(itertools.pairwise(sizes))
  )
  found = at({'g1': 0.25, 'g2': 0.6}, grams=grams)
  np.testing.assert_allclose(found, sum(edges) / merged, rtol=1e-12)
  with pytest.raises(ValueError, match='partial_cost: separate='):
    at(1.5)


def solve(sizes, weights, budget):
  symmetry = chain(sizes)
  a, b = draw(symmetry, 1), draw(symmetry, 2)
  names = {f'g{i + 1}': w for i, w in enumerate(weights)}
  found = align.widths(a, b, symmetry=symmetry, budget=budget, weights=names)
  return [found[name] for name in names]


def best_on_grid(sizes, weights, budget):
  limit = budget * cost(sizes, [0] * len(sizes)) * (1 + 1e-9)
  grids = [[k / n for k in range(n + 1)] for n in sizes[1:-1]]
  fits = (
    r for r in itertools.product(*grids) if cost(sizes, [0, *r, 0]) <= limit
  )
  return max(np.dot(weights, r) for r in fits)


CASES = [
  ((5, 12, 12, 3), (1.0, 1.0)),
  ((20, 10, 10, 10), (0.3, 2.0)),
  ((4, 16, 8, 16), (1.0, 0.2)),
  ((3, 8, 8, 8, 3), (1.0, 1.0, 1.0)),
  ((3, 8, 10, 6, 9), (0.5, 1.0, 0.7)),
  ((9, 6, 9, 6, 9), (1.0, 0.1, 1.0)),
]


@pytest.mark.parametrize('budget', [1.0, 1.2, 1.5, 1.8])
@pytest.mark.parametrize(('sizes', 'weights'), CASES)
def test_near_the_optimum_of_exhaustive_search(sizes, weights, budget):
  r = solve(sizes, weights, budget)
  limit = budget * cost(sizes, [0] * len(sizes))
  assert cost(sizes, [0, *r, 0]) <= limit * (1 + 1e-8)
  best = best_on_grid(sizes, weights, budget)
  assert np.dot(weights, r) >= 0.97 * best - 1e-12
  for k, n in zip(r, sizes[1:-1]):
    assert np.isclose(k * n, round(k * n))


def test_no_further_unit_fits():
  sizes, weights = (7, 13, 11, 17, 5), (0.4, 1.0, 0.6)
  r = solve(sizes, weights, 1.37)
  limit = 1.37 * cost(sizes, [0] * 5)
  for i, n in enumerate(sizes[1:-1]):
    more = list(r)
    more[i] += 1 / n
    assert more[i] > 1 + 1e-9 or cost(sizes, [0, *more, 0]) > limit


def test_limits_and_monotonicity():
  sizes, weights = (5, 12, 12, 3), (1.0, 0.5)
  assert solve(sizes, weights, 1.0) == [0, 0]
  assert solve(sizes, weights, 2.0) == [1, 1]
  values = [np.dot(weights, solve(sizes, weights, b)) for b in (1.2, 1.5, 1.8)]
  assert values == sorted(values)
  assert solve(sizes, (1.0, -1.0), 2.0) == [1, 0]
  assert solve(sizes, (0.0, 0.0), 2.0) == [0, 0]


def test_copies_keep_nothing_separate():
  symmetry = chain((5, 12, 12, 3))
  a, b = draw(symmetry, 1), draw(symmetry, 2)
  assert align.widths(a, a, symmetry=symmetry, budget=1.5) == {
    'g1': 0,
    'g2': 0,
  }
  assert sum(align.widths(a, b, symmetry=symmetry, budget=1.5).values()) > 0.5


def test_cost_counts_positions_of_a_convolution():
  symmetry = chain((5, 10, 10, 5))
  a, b = draw(symmetry, 1), draw(symmetry, 2)
  rows = {'w0': 1.0, 'w1': 1.0, 'w2': 100.0}
  grams = {
    name: types.Gram(jnp.eye(len(a[name]))[None], jnp.asarray(count))
    for name, count in rows.items()
  }
  options = {'symmetry': symmetry, 'budget': 1.1, 'weights': {'g1': 1, 'g2': 1}}
  assert align.widths(a, b, grams=grams, **options) == {'g1': 1.0, 'g2': 0.0}
  even = align.widths(a, b, **options)
  assert even['g1'] < 1


def test_separate_outputs_are_part_of_the_base_cost():
  symmetry = chain((5, 10, 40))
  a, b = draw(symmetry, 1), draw(symmetry, 2)
  b['w1'] = jnp.ones((10, 20))
  found = align.widths(
    a, b, symmetry=symmetry, budget=1.05, weights={'g1': 1}, outputs=['g2']
  )
  # C(r) = 2 * 50 + 400 + 200 - 50 (1 - r), C(0) = 650: r <= 0.65.
  assert found == {'g1': 0.6}


def test_measured_weights():
  found = align.width_weights(
    {'a': 0.8, 'b': 0.6},
    {'a': 0.3, 'b': 0.9},
    all_merged=0.5,
    all_separate=1.0,
    budget=1.25,
  )
  np.testing.assert_allclose(
    [found['a'], found['b']],
    [0.75 * 0.3 + 0.25 * 0.7, 0.75 * 0.1 + 0.25 * 0.1],
  )


def test_a_merge_with_chosen_widths_stays_within_budget():
  symmetry = chain((3, 6, 5, 2))
  a, b = draw(symmetry, 1), draw(symmetry, 2)
  net = lambda p, x: jnp.tanh(jnp.tanh(x @ p['w0']) @ p['w1']) @ p['w2']
  x = jnp.asarray(np.random.default_rng(0).normal(size=(40, 3)))
  grams = stats.joint_gram(net, [a, b], [x])
  sizes = []
  for budget in (1.0, 1.5, 2.0):
    separate = align.widths(a, b, symmetry=symmetry, budget=budget, grams=grams)
    merged = align.pleas(
      a, b, symmetry=symmetry, separate=separate, grams=grams
    )
    nonzero = sum(int((w != 0).sum()) for w in jax.tree.leaves(merged.params))
    assert nonzero <= budget * 58
    sizes.append(nonzero)
  assert sizes == sorted(sizes)
  assert sizes[0] == 58
  assert sizes[-1] == 116
  out = (net(a, x) + net(b, x)) / 2
  np.testing.assert_allclose(net(merged.params, x), out, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'budget': 0.9}, 'budget=0.9, expected at least 1'),
    ({'budget': float('nan')}, 'budget is NaN'),
    ({'weights': {'g9': 1.0}}, "has no group 'g9'"),
    ({'weights': {'g1': float('inf')}}, "weight of group 'g1' is inf"),
    ({'outputs': ['g1']}, "outputs names 'g1'"),
  ],
)
def test_bad_arguments_are_named(change, message):
  symmetry = chain((5, 12, 12, 3))
  a = draw(symmetry, 1)
  options = {'symmetry': symmetry, 'budget': 1.5} | change
  with pytest.raises(ValueError, match=message):
    align.widths(a, a, **options)


def test_bad_measurements_are_named():
  with pytest.raises(ValueError, match="group 'b' is in one mapping only"):
    align.width_weights(
      {'a': 1}, {'a': 1, 'b': 1}, all_merged=0, all_separate=1, budget=1.5
    )
  with pytest.raises(ValueError, match=r'budget=3, expected 1 \.\. 2'):
    align.width_weights({}, {}, all_merged=0, all_separate=1, budget=3)
