"""Matching many models: objective, gradients, line search and cycles."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align
from wsl.align import _soft
from wsl.align._relaxed import frank_wolfe, line_search, objective

F = align.Factor


def _dense(inputs, *units, outputs=None):
  """Returns the symmetry of dense layers a, b, ... with free hidden units."""
  factors = [F('a:0', inputs, 'an input')]
  factors += [F(f'{leaf}:1', n) for leaf, n in zip('abc', units)]
  if outputs is not None:
    factors += [F(f'{"abc"[len(units)]}:1', outputs, 'an output')]
  axes = [((f.name,),) for f in factors]
  return align.Symmetry(
    tuple(factors), tuple(zip('abc', itertools.pairwise(axes)))
  )


PLAIN = _dense(5, 7, 6, outputs=2)  # an MLP with two hidden layers
# Three heads, two dependent groups in one leaf, and a recurrent matrix.
NESTED = align.Symmetry(
  factors=(
    F('a:0', 5, 'an input'),
    F('a:1.0', 3),
    F('a:1.1', 4, outer=('a:1.0',)),
    F('b:1', 2, outer=('a:1.0',)),
    F('r:0', 4),
  ),
  axes=(
    ('a', ((('a:0',),), (('a:1.0', 'a:1.1'),))),
    ('b', ((('a:1.0', 'a:1.1'),), (('b:1',),))),
    ('r', ((('r:0',),), (('r:0',),))),
    ('s', ((('r:0',),), (('a:1.0', 'a:1.1'),))),
  ),
)
SHAPES = {
  PLAIN: {'a': (5, 7), 'b': (7, 6), 'c': (6, 2)},
  NESTED: {'a': (5, 12), 'b': (12, 2), 'r': (4, 4), 's': (4, 12)},
}
SOFT = {'a:1': np.full((7, 7), 0.2), 'b:1': np.full((6, 6), 0.2)}
each_symmetry = pytest.mark.parametrize('symmetry', [PLAIN, NESTED])


def _params(symmetry, seed):
  rng = np.random.default_rng(seed)
  return {
    n: jnp.asarray(rng.normal(size=s)) for n, s in SHAPES[symmetry].items()
  }


def _models(symmetry, count, seed=0):
  each = [_params(symmetry, seed + i) for i in range(count)]
  return {n: jnp.stack([p[n] for p in each]) for n in each[0]}


def _matrices(symmetry, count, seed):
  return frank_wolfe.initial_matrices(
    'center', count, symmetry, jax.random.key(seed), np.dtype(np.float64)
  )


def _pairs(moved):
  """Returns the objective by its definition, the sum over all pairs."""
  count = len(next(iter(moved.values())))
  return sum(
    jnp.vdot(x[p], x[q])
    for p, q in itertools.combinations(range(count), 2)
    for x in moved.values()
  )


def _objective(symmetry, models, matrices):
  apply = jax.vmap(lambda p, m: _soft.apply(p, m, symmetry=symmetry))
  return _pairs(apply(models, matrices))


def _aligned(models, permutations, symmetry):
  moved = [
    align.permute(m, g, symmetry=symmetry) for m, g in zip(models, permutations)
  ]
  return float(_pairs(jax.tree.map(lambda *x: jnp.stack(x), *moved)))


def test_gradients_equal_those_of_the_sum_over_pairs():
  symmetry = NESTED
  models, matrices = _models(symmetry, 3), _matrices(symmetry, 3, 0)
  names = tuple(g.name for g in symmetry.groups)
  sums = objective.universe_sum(models, matrices, symmetry=symmetry)
  pairs = jax.jit(jax.value_and_grad(lambda m: _objective(symmetry, models, m)))
  wanted, wanted_gradients = pairs(matrices)
  for chosen in ([0, 1, 2], [1]):
    value, gradients, _ = objective.gradient(
      models, matrices, sums, np.asarray(chosen), symmetry=symmetry, names=names
    )
    if len(chosen) == 3:
      np.testing.assert_allclose(value, wanted, rtol=1e-12)
    for name, gradient in gradients.items():
      np.testing.assert_allclose(
        gradient,
        np.asarray(wanted_gradients[name])[chosen],
        rtol=1e-10,
        atol=1e-12,
      )


@pytest.mark.parametrize('chosen', [[1], [0, 1, 2]])
def test_line_form_and_line_search_along_a_segment(chosen):
  symmetry = NESTED
  models, matrices = _models(symmetry, 3), _matrices(symmetry, 3, 1)
  draws = [
    align.random(symmetry, jax.random.key(i), gauges=('permutation',))
    for i in chosen
  ]
  ends = frank_wolfe.harden_each(draws, symmetry, np.dtype(np.float64))
  sums = objective.universe_sum(models, matrices, symmetry=symmetry)
  chosen, grid = np.asarray(chosen), np.linspace(0.0, 1.0, 201)
  for names in objective.groups_by_depth(symmetry, models):
    how = {'symmetry': symmetry, 'names': names}
    _, _, start = objective.gradient(models, matrices, sums, chosen, **how)
    form, changes = objective.line_form(
      models, matrices, ends, start, sums, chosen, **how
    )
    step, gain, weights = line_search.line_search(np.asarray(form))

    @jax.jit
    @jax.vmap
    def along(t, names=names):
      new = {
        n: matrices[n].at[chosen].add(t * (ends[n] - matrices[n][chosen]))
        for n in names
      }
      return _objective(symmetry, models, matrices | new)

    values = np.asarray(along(jnp.asarray([*grid, step])))
    scale = np.abs(values).max()
    assert gain >= np.max(values) - values[0] - 1e-10 * scale
    np.testing.assert_allclose(values[-1], values[0] + gain, atol=1e-10 * scale)
    # The incremental update of the sum agrees with the new matrices.
    some = {n: ends[n] for n in names}
    new, new_sums = objective.take_step(
      matrices, some, sums, changes, chosen, step, weights
    )
    found = objective.universe_sum(models, new, symmetry=symmetry)
    for leaf, x in found.items():
      np.testing.assert_allclose(x, new_sums[leaf], atol=1e-10)


@pytest.mark.parametrize('size', [2, 3, 4])
def test_line_search_against_a_dense_grid(size):
  rng = np.random.default_rng(size)
  grid = np.linspace(0.0, 1.0, 100_001)
  for _ in range(20):
    form = rng.normal(size=(size, size))
    weights = [np.ones_like(grid)]
    for a in range(1, size):
      nodes = [b / (size - 1) for b in range(size) if b != a]
      at = a / (size - 1)
      weights += [np.prod([(grid - b) / (at - b) for b in nodes], axis=0)]
    values = np.einsum('ag,ab,bg->g', weights, form, weights) - form[0, 0]
    step, gain, _ = line_search.line_search(form)
    assert 0 <= step <= 1
    assert gain >= values.max() - 1e-12
    np.testing.assert_allclose(gain, values.max(), atol=1e-7)


@pytest.mark.parametrize(
  ('symmetry', 'schedule'), [(PLAIN, [[0], [1], [2]]), (NESTED, [[0, 1, 2]])]
)
def test_sweeps_never_decrease_the_objective(symmetry, schedule):
  models, matrices = _models(symmetry, 3), _matrices(symmetry, 3, 2)
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
  value = jax.jit(lambda m: _objective(symmetry, models, m))
  rise = value(after) - value(matrices)
  np.testing.assert_allclose(sum(gains), rise, rtol=1e-9)
  for x in after.values():
    np.testing.assert_allclose(x.sum(-1), np.ones(x.shape[:-1]), atol=1e-9)
    assert x.min() >= 0


@each_symmetry
def test_planted_recovery(symmetry):
  base = _params(symmetry, 0)
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
  models = [_params(symmetry, i) for i in range(3)]
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
    _aligned(models, found, symmetry), best, rtol=1e-12
  )


@pytest.mark.parametrize('update', ['in turn', 'at once'])
def test_unrelated_models_agree_better_than_at_random(update):
  models = [_params(PLAIN, i) for i in range(3)]
  draw = lambda i: align.random(
    PLAIN, jax.random.key(i), gauges=('permutation',)
  )
  random = [
    _aligned(models, [draw(3 * i + p) for p in range(3)], PLAIN)
    for i in range(20)
  ]
  match = lambda **x: align.match_many(
    models, symmetry=PLAIN, key=jax.random.key(1), update=update, **x
  )
  assert _aligned(models, match(), PLAIN) > max(random)
  # Sweeps from given permutations do not decrease the agreement.
  first = [draw(p) for p in range(3)]
  again = match(initial=first, max_sweeps=50)
  assert _aligned(models, again, PLAIN) >= _aligned(models, first, PLAIN)
  _equal(match(), match())


@each_symmetry
def test_soft_matrices_are_a_start(symmetry):
  models = [_params(symmetry, i) for i in range(3)]
  match = lambda **x: align.match_many(
    models, symmetry=symmetry, key=jax.random.key(0), **x
  )
  soft = _matrices(symmetry, 3, seed=4)
  each = [{name: x[p] for name, x in soft.items()} for p in range(3)]
  sweeps = []
  found = match(initial=each, progress=sweeps.append)
  stacked = {n: jnp.stack([m[n] for m in models]) for n in models[0]}
  moved = objective._apply_each(stacked, soft, symmetry)
  begun = float(_pairs(moved))
  np.testing.assert_allclose(
    sweeps[0].objective - sweeps[0].gained, begun, rtol=1e-9
  )
  assert all(s.gained >= 0 for s in sweeps)
  assert [s.sweep for s in sweeps] == [*range(len(sweeps))]
  assert _aligned(models, found, symmetry) > begun
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
  models = [_params(PLAIN, i) for i in range(4)]
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
  models = [_params(PLAIN, 0), _params(PLAIN, 1)]
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
  models = [_params(PLAIN, 0), _params(PLAIN, 1)]
  with pytest.raises(ValueError, match=message):
    align.match_many(models, symmetry=PLAIN, key=jax.random.key(0), **change)


def test_models_are_checked():
  match = lambda *models: align.match_many(
    models, symmetry=PLAIN, key=jax.random.key(0)
  )
  model = _params(PLAIN, 0)
  with pytest.raises(ValueError, match='at least two are needed'):
    match(model)
  with pytest.raises(ValueError, match="model 1: leaf 'a' has shape"):
    match(model, model | {'a': jnp.ones((5, 8))})
  with pytest.raises(ValueError, match='NaN or inf'):
    match(model, model | {'a': jnp.full((5, 7), jnp.inf)})


def _equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)
