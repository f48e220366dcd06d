"""Matching many models: sweeps, planted permutations and cycles."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.relaxed.many_models import (
  _dense,
  agreement_of,
  draw_matrices,
  draw_models,
  draw_params,
  NESTED,
  objective_of,
  pair_products,
  PLAIN,
  SOFT,
)
from wsl import align
from wsl.align import _soft
from wsl.align._relaxed import frank_wolfe, objective

each_symmetry = pytest.mark.parametrize('symmetry', [PLAIN, NESTED])


@pytest.mark.parametrize(
  ('symmetry', 'schedule'), [(PLAIN, [[0], [1], [2]]), (NESTED, [[0, 1, 2]])]
)
def test_sweeps_never_decrease_the_objective(symmetry, schedule):
  models, matrices = draw_models(symmetry, 3), draw_matrices(symmetry, 3, 2)
  after, gains = frank_wolfe.maximize(
    models,
    matrices,
    symmetry=symmetry,
    solver=align.assign_scipy,
    schedule=np.asarray(schedule),
    max_sweeps=30,
    tolerance=1e-9,
    patience=5,
  )
  assert min(gains) >= 0
  value = jax.jit(lambda m: objective_of(symmetry, models, m))
  rise = value(after) - value(matrices)
  np.testing.assert_allclose(sum(gains), rise, rtol=1e-9)
  for x in after.values():
    np.testing.assert_allclose(x.sum(-1), np.ones(x.shape[:-1]), atol=1e-9)
    assert x.min() >= 0


@each_symmetry
def test_planted_recovery(symmetry):
  base = draw_params(symmetry, 0)
  draws = [
    align.random(symmetry, jax.random.key(i), gauges=('permutation',))
    for i in range(3)
  ]
  models = [align.permute(base, g, symmetry=symmetry) for g in draws]
  found = align.match_many(
    models, symmetry=symmetry, key=jax.random.key(0), starts=2
  )
  _equal(found[0], align.identity(symmetry))
  for model, g in zip(models, found):
    _equal(align.permute(model, g, symmetry=symmetry), models[0])


@each_symmetry
def test_maps_compose_to_the_identity_around_every_cycle(symmetry):
  models = [draw_params(symmetry, i) for i in range(3)]
  found = align.match_many(models, symmetry=symmetry, key=jax.random.key(0))

  def pairwise(p, q):  # from model q to the basis of model p
    back = align.invert(found[p], symmetry=symmetry)
    return align.compose(found[q], back, symmetry=symmetry)

  for cycle in itertools.permutations(range(3)):
    around = align.identity(symmetry)
    for p, q in zip(cycle, [*cycle[1:], cycle[0]]):
      around = align.compose(around, pairwise(q, p), symmetry=symmetry)
    _equal(around, align.identity(symmetry))


@pytest.mark.parametrize('seed', range(3))
def test_two_tiny_models_against_brute_force(seed):
  symmetry = _dense(3, 4, 4)
  rng = np.random.default_rng(seed)
  draw = lambda: {'a': rng.normal(size=(3, 4)), 'b': rng.normal(size=(4, 4))}
  x, y = draw(), draw()
  best = -np.inf
  for g in itertools.permutations(range(4)):
    first = np.vdot(x['a'], y['a'][:, g])
    for h in itertools.permutations(range(4)):
      best = max(best, first + np.vdot(x['b'], y['b'][np.ix_(g, h)]))
  models = [jax.tree.map(jnp.asarray, m) for m in (x, y)]
  found = align.match_many(
    models, symmetry=symmetry, key=jax.random.key(0), starts=6
  )
  np.testing.assert_allclose(
    agreement_of(models, found, symmetry), best, rtol=1e-12
  )


@pytest.mark.parametrize('update', ['in turn', 'at once'])
def test_unrelated_models_agree_better_than_at_random(update):
  models = [draw_params(PLAIN, i) for i in range(3)]
  draw = lambda i: align.random(
    PLAIN, jax.random.key(i), gauges=('permutation',)
  )
  random = [
    agreement_of(models, [draw(3 * i + p) for p in range(3)], PLAIN)
    for i in range(20)
  ]
  match = lambda **x: align.match_many(
    models, symmetry=PLAIN, key=jax.random.key(1), update=update, **x
  )
  assert agreement_of(models, match(), PLAIN) > max(random)
  # Sweeps from given permutations do not decrease the agreement.
  first = [draw(p) for p in range(3)]
  again = match(initial=first, max_sweeps=50)
  assert agreement_of(models, again, PLAIN) >= agreement_of(
    models, first, PLAIN
  )
  _equal(match(), match())


@each_symmetry
def test_soft_matrices_are_a_start(symmetry):
  models = [draw_params(symmetry, i) for i in range(3)]
  match = lambda **x: align.match_many(
    models, symmetry=symmetry, key=jax.random.key(0), **x
  )
  soft = draw_matrices(symmetry, 3, seed=4)
  each = [{name: x[p] for name, x in soft.items()} for p in range(3)]
  sweeps = []
  found = match(initial=each, progress=sweeps.append)
  stacked = {n: jnp.stack([m[n] for m in models]) for n in models[0]}
  moved = objective._apply_each(stacked, soft, symmetry)
  begun = float(pair_products(moved))
  np.testing.assert_allclose(
    sweeps[0].objective - sweeps[0].gained, begun, rtol=1e-9
  )
  assert all(s.gained >= 0 for s in sweeps)
  assert [s.sweep for s in sweeps] == [*range(len(sweeps))]
  assert agreement_of(models, found, symmetry) > begun
  # Hard matrices are the permutations.
  draws = [
    align.random(symmetry, jax.random.key(p), gauges=('permutation',))
    for p in range(3)
  ]
  hard = [_soft.harden(g, symmetry=symmetry, dtype=np.float64) for g in draws]
  jax.tree.map(
    np.testing.assert_array_equal, match(initial=hard), match(initial=draws)
  )


def test_agreement_is_the_objective():
  models = [draw_params(PLAIN, i) for i in range(4)]
  pairs = itertools.combinations(models, 2)
  wanted = sum(float(np.vdot(p[n], q[n])) for p, q in pairs for n in p)
  np.testing.assert_allclose(align.agreement(models), wanted, rtol=1e-12)
  some = align.agreement(models, leaves='^a$')
  pairs = itertools.combinations(models, 2)
  wanted = sum(float(np.vdot(p['a'], q['a'])) for p, q in pairs)
  np.testing.assert_allclose(some, wanted, rtol=1e-12)
  large = [{'w': jnp.full(10**5, x, jnp.bfloat16)} for x in (1.0, 3.0)]
  assert align.agreement(large) == 3e5
  counted = [{'w': jnp.ones(2), 'n': jnp.asarray(i)} for i in range(2)]
  assert align.agreement(counted) == 2
  with pytest.raises(ValueError, match='at least two'):
    align.agreement(models[:1])


def test_leaves_that_are_not_chosen_have_no_effect():
  models = [draw_params(PLAIN, 0), draw_params(PLAIN, 1)]
  match = lambda second: align.match_many(
    [models[0], second], symmetry=PLAIN, key=jax.random.key(0), leaves='a|b'
  )
  _equal(match(models[1]), match(models[1] | {'c': 9 * models[0]['c']}))
  nothing = align.match_many(
    models,
    symmetry=PLAIN,
    key=jax.random.key(0),
    leaves=lambda name, shape: False,
  )
  _equal(nothing[1], align.identity(PLAIN))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'starts': 0}, 'starts=0'),
    ({'update': 'x'}, "update 'x' is unknown, expected 'in turn' or 'at once'"),
    ({'initial': 'x'}, "initial 'x' is unknown"),
    ({'initial': []}, 'initial has 0 permutations for 2 models'),
    ({'initial': [{}, {}]}, "lacks the group 'a:1'"),
    ({'initial': [{'a:1': np.eye(3)}] * 2}, r"'a:1'\] is \[3, 3\], expected"),
    ({'initial': [SOFT] * 2}, 'is not doubly stochastic'),
  ],
)
def test_arguments_are_checked(change, message):
  models = [draw_params(PLAIN, 0), draw_params(PLAIN, 1)]
  with pytest.raises(ValueError, match=message):
    align.match_many(models, symmetry=PLAIN, key=jax.random.key(0), **change)


def test_models_are_checked():
  match = lambda *models: align.match_many(
    models, symmetry=PLAIN, key=jax.random.key(0)
  )
  model = draw_params(PLAIN, 0)
  with pytest.raises(ValueError, match='at least two are needed'):
    match(model)
  with pytest.raises(ValueError, match="model 1: leaf 'a' has shape"):
    match(model, model | {'a': jnp.ones((5, 8))})
  with pytest.raises(ValueError, match='NaN or inf'):
    match(model, model | {'a': jnp.full((5, 7), jnp.inf)})


def _equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)
