"""Transport between widths: planted copies, and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.match import weight_matching_test as examples
from tests.align.transport.widths import (
  apply,
  BACK,
  COPIES,
  copy_units,
  drawn,
  gap,
  mlp,
  MLP_VIEWS,
  PAIR,
  resized,
  SMALL,
  VECTORS,
  WIDE,
)
from wsl import align


@pytest.mark.parametrize('seed', range(4))
def test_copies_are_merged_and_weights_out_are_summed(seed):
  small = mlp(SMALL, seed)
  wide, _ = copy_units(small, COPIES, seed)
  found = align.transport(small, wide, views=MLP_VIEWS, **PAIR)
  assert gap(small, found.params) < 1e-12
  assert found.distances[-1] < 1e-24
  # Each wide unit has one partner, and each small one as many as copies.
  for (name, table), counts in zip(sorted(found.maps.items()), COPIES):
    assert name in ('h1', 'h2')
    assert sorted(np.count_nonzero(table, 1)) == sorted(counts)
    assert (np.count_nonzero(table, 0) == 1).all()


@pytest.mark.parametrize('seed', range(3))
def test_a_small_model_becomes_a_wide_one_of_the_same_function(seed):
  small, wide = mlp(SMALL, seed), mlp(WIDE, seed + 10)  # unrelated
  found = align.transport(wide, small, views=MLP_VIEWS, **BACK)
  x = np.random.default_rng(seed).normal(size=(9, 5))
  np.testing.assert_allclose(
    apply(found.params, x), apply(small, x), atol=1e-12
  )
  for table in found.maps.values():
    np.testing.assert_array_equal(np.asarray(table).sum(1), 1)
    assert (np.asarray(table).sum(0) >= 1).all()
  # Without the division the copies' weights out would add up.
  wrong = align.transport(wide, small, views={'^w': None}, **BACK)
  assert np.abs(apply(wrong.params, x) - apply(small, x)).max() > 0.1


def test_exact_masses_of_copies_are_found_by_a_linear_program():
  small = mlp(SMALL, 0)
  wide, shares = copy_units(small, COPIES, 0)
  masses = {'h1': np.ones(4), 'h2': np.ones(3)}, dict(zip(('h1', 'h2'), shares))
  settings = {'views': MLP_VIEWS, 'marginals': 'both'} | PAIR
  found = align.transport(small, wide, masses=masses, **settings)
  assert gap(small, found.params) < 1e-9
  # With equal masses units have to be split, and the function changes.
  split = align.transport(small, wide, **settings)
  assert gap(small, split.params) > 0.1
  for name, table in split.maps.items():
    n, m = table.shape
    np.testing.assert_allclose(np.asarray(table).sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(np.asarray(table).sum(0), n / m, atol=1e-12)
    assert name in masses[0]


def _matching(fixed, moving, symmetry):
  """Returns the permutation of weight matching, and the squared distance."""
  visits = []
  found = align.weight_matching(
    fixed,
    moving,
    symmetry=symmetry,
    key=jax.random.key(0),
    progress=visits.append,
  )
  norms = sum(np.square(x).sum() for p in (fixed, moving) for x in p.values())
  return found, norms - 2 * visits[-1].objective


def test_equal_widths_give_a_permutation():
  symmetry = examples._mlp()
  sizes = [symmetry.factor[n].size for n in ('in', 'h1', 'h2', 'out')]
  fixed = mlp(sizes, 0)
  moving, _ = copy_units(fixed, [[1] * n for n in sizes[1:3]], 0)
  moving = {
    n: x + 0.1 * np.random.default_rng(1).normal(size=x.shape)
    for n, x in moving.items()
  }
  found = align.transport(fixed, moving, symmetry=symmetry, views=MLP_VIEWS)
  matched, distance = _matching(fixed, moving, symmetry)
  for name, table in found.maps.items():
    wanted = np.eye(table.shape[0])[np.asarray(matched[name])]
    np.testing.assert_array_equal(table, wanted)
  np.testing.assert_allclose(found.distances[-1], distance, rtol=1e-10)
  soft = align.transport(
    fixed, moving, symmetry=symmetry, views=MLP_VIEWS, marginals='both'
  )
  for name, table in soft.maps.items():
    np.testing.assert_array_equal(table, found.maps[name])


@pytest.mark.parametrize('name', ['attention', 'stack', 'chain', 'group_norm'])
def test_unrelated_models_of_equal_widths_are_matched_as_by_weights(name):
  """One move, or independent ones, solve these: no other local optimum."""
  symmetry = examples.SYMMETRIES[name]
  fixed, moving = drawn(symmetry, 0), drawn(symmetry, 1)
  found = align.transport(fixed, moving, symmetry=symmetry, views=VECTORS)
  matched, distance = _matching(fixed, moving, symmetry)
  np.testing.assert_allclose(found.distances[-1], distance, rtol=1e-10)
  for group in symmetry.groups:
    free = [o for o in group.outer if not symmetry.factor[o].pinned]
    table, order = found.maps[group.name], np.asarray(matched[group.name])
    if free and len(group.outer) == 1:  # heads: the pairs (u, sigma(u))
      outer = np.asarray(matched[free[0]])
      table = np.asarray(table)[np.arange(len(outer)), outer]
    if len(free) < 2 and table.ndim == order.ndim + 1:
      np.testing.assert_array_equal(table, np.eye(group.size)[order])


SOFT = [
  {},
  {'marginals': 'both'},
  {'regularisation': 0.05},
  {'regularisation': 0.05, 'unbalanced': 0.5},
]


@pytest.mark.parametrize('settings', SOFT)
@pytest.mark.parametrize('name', ['attention', 'gqa', 'heads_rnn', 'shared'])
def test_the_distance_never_rises_and_is_that_of_the_result(name, settings):
  symmetry = examples.SYMMETRIES[name]
  other = resized(
    symmetry, {1: 1, 2: 3, 3: 2, 4: 5, 5: 4, 6: 9, 7: 8, 8: 7, 10: 4}
  )
  fixed, moving = drawn(symmetry, 0), drawn(other, 1)
  found = align.transport(
    fixed, moving, symmetry=symmetry, other=other, views=VECTORS, **settings
  )
  gaps = [
    np.square(fixed[n] - np.asarray(found.params[n])).sum() for n in fixed
  ]
  assert (np.diff(found.distances) <= 0).all()
  np.testing.assert_allclose(found.distances[-1], np.sum(gaps), rtol=1e-12)


def test_groups_without_selected_leaves_keep_their_order():
  small = mlp(SMALL, 0)
  wide, _ = copy_units(small, COPIES, 0)
  found = align.transport(
    small, wide, views=MLP_VIEWS, leaves='^[wb]0$', **PAIR
  )
  np.testing.assert_allclose(found.params['w0'], small['w0'], atol=1e-12)
  wanted = np.equal.outer(np.arange(3), np.arange(6) % 3) / 2
  np.testing.assert_array_equal(found.maps['h2'], wanted)


def test_an_integer_ratio_of_widths_keeps_the_moments_of_units():
  """All units have equally many copies: normalised units are the same."""
  widths = (5, 4, 2), (5, 8, 2)
  small, wide = (mlp(sizes, i) for i, sizes in enumerate(widths))
  symmetries = [examples._mlp(sizes) for sizes in widths]

  def apply(params, x):
    h = x @ np.asarray(params['w0']) + np.asarray(params['b0'])
    h = (h - h.mean(1, keepdims=True)) / h.std(1, keepdims=True)
    return np.tanh(h) @ np.asarray(params['w1'])

  found = align.transport(
    wide,
    small,
    symmetry=symmetries[1],
    other=symmetries[0],
    views=MLP_VIEWS,
    marginals='both',
  )
  x = np.random.default_rng(0).normal(size=(9, 5))
  np.testing.assert_allclose(
    apply(found.params, x), apply(small, x), atol=1e-12
  )
  np.testing.assert_array_equal(np.count_nonzero(found.maps['h1'], 0), 2)


def test_unbalanced_transport_drops_a_unit_without_partner():
  small = mlp((5, 4, 2), 0)
  moving = {n: x.copy() for n, x in small.items()}
  strange = {'w0': np.full((5, 1), 4.0), 'b0': np.full(1, -9.0)}
  moving = {
    'w0': np.concatenate([small['w0'], strange['w0']], 1),
    'b0': np.concatenate([small['b0'], strange['b0']]),
    'w1': np.concatenate([small['w1'], np.full((1, 2), 5.0)]),
    'b1': small['b1'],
  }
  settings = {
    'symmetry': examples._mlp((5, 4, 2)),
    'other': examples._mlp((5, 5, 2)),
    'views': MLP_VIEWS,
    'regularisation': 0.002,
  }
  free = align.transport(small, moving, unbalanced=0.05, **settings)
  mass = np.asarray(free.maps['h1']).sum(0)
  assert mass[4] < 1e-6 < 0.5 < mass[:4].min()
  assert np.abs(np.asarray(free.params['w0']) - small['w0']).max() < 1e-6
  bound = align.transport(small, moving, **settings)
  assert np.asarray(bound.maps['h1']).sum(0)[4] > 0.7


def test_arithmetic_is_wide_and_dtypes_are_kept():
  small = mlp(SMALL, 0)
  wide, _ = copy_units(small, COPIES, 0)
  half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), wide)
  half |= {'b1': jnp.asarray(wide['b1'], jnp.float32)}
  symmetries = {
    key: align.Symmetry(s.factors, (*s.axes, ('step', ())))
    for key, s in PAIR.items()
  }
  step = {'step': np.int32(3)}
  fixed = jax.tree.map(lambda x: x.astype(np.float32), small) | step
  found = align.transport(fixed, half | step, views=MLP_VIEWS, **symmetries)
  assert found.params['w0'].dtype == jnp.bfloat16
  assert found.params['b1'].dtype == np.float32
  assert found.params['step'] == 3
  assert all(x.dtype == np.float32 for x in found.maps.values())
  gap = np.abs(np.asarray(found.params['w1'], np.float32) - small['w1']).max()
  assert gap < 0.02
