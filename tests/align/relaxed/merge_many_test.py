"""MergeMany: planted orders, its fixed points, and every possible order."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align

F = align.Factor
AXES = [((name,),) for name in ('x', 'g', 'h', 'y')]
LEAVES = tuple(zip('abc', itertools.pairwise(AXES)))


def mlp(inputs, first, second, outputs):
  factors = (F('x', inputs, 'an input'), F('g', first), F('h', second))
  return align.Symmetry((*factors, F('y', outputs, 'an output')), LEAVES)


def params(symmetry, seed):
  rng = np.random.default_rng(seed)
  sizes = [symmetry.factor[name].size for name in ('x', 'g', 'h', 'y')]
  return {
    n: jnp.asarray(rng.normal(size=shape))
    for n, shape in zip('abc', itertools.pairwise(sizes))
  }


def permuted(models, found, symmetry):
  pairs = zip(models, found)
  return [align.permute(m, g, symmetry=symmetry) for m, g in pairs]


def find(models, symmetry, seed=0, **options):
  return align.merge_many(
    models, symmetry=symmetry, key=jax.random.key(seed), **options
  )


@pytest.mark.parametrize('count', [2, 3, 5])
def test_planted_orders_are_found(count):
  symmetry = mlp(5, 9, 8, 3)
  base, noise = params(symmetry, 0), params(symmetry, 1)
  near = [
    jax.tree.map(lambda x, y, t=t: x + 0.02 * t * y, base, noise)
    for t in range(count)
  ]
  keys = jax.random.split(jax.random.key(1), count)
  draws = [align.random(symmetry, key, gauges=('permutation',)) for key in keys]
  found = find(permuted(near, draws, symmetry), symmetry)
  jax.tree.map(
    np.testing.assert_array_equal, found[0], align.identity(symmetry)
  )
  # Undoing the draw and applying that of model 0 gives the order of model 0.
  for g, draw in zip(found, draws):
    together = align.compose(draw, g, symmetry=symmetry)
    jax.tree.map(np.testing.assert_array_equal, together, draws[0])


@pytest.mark.parametrize('seed', range(3))
def test_the_result_is_a_fixed_point(seed):
  """No other order of one group of one model is closer to the others' mean."""
  symmetry = mlp(4, 7, 6, 3)
  models = [params(symmetry, 10 * seed + i) for i in range(4)]
  rounds = []
  found = find(models, symmetry, progress=lambda *x: rounds.append(x))
  aligned = permuted(models, found, symmetry)
  values = [value for _, value in rounds]
  assert values == sorted(values)
  np.testing.assert_allclose(values[-1], align.agreement(aligned), rtol=1e-12)
  assert values[-1] > align.agreement(models)
  for p, model in enumerate(aligned):
    others = [m for q, m in enumerate(aligned) if q != p]
    mean = jax.tree.map(lambda *x: sum(x) / 3, *others)
    for group, terms in (
      ('g', [mean['a'].T @ model['a'], mean['b'] @ model['b'].T]),
      ('h', [mean['b'].T @ model['b'], mean['c'] @ model['c'].T]),
    ):
      gain = np.asarray(sum(terms))
      best = align.assign_scipy(gain)
      rows = np.arange(len(gain))
      assert gain[rows, best].sum() <= np.trace(gain) * (1 + 1e-6), group


@pytest.mark.parametrize('seed', range(4))
def test_three_tiny_models_are_among_the_best_of_all_orders(seed):
  symmetry = mlp(3, 3, 3, 2)
  models = [params(symmetry, 10 * seed + i) for i in range(3)]
  orders = [
    {'g': jnp.asarray(g), 'h': jnp.asarray(h)}
    for g in itertools.permutations(range(3))
    for h in itertools.permutations(range(3))
  ]
  flat = lambda m: np.concatenate([np.ravel(m[n]) for n in 'abc'])
  each = [
    np.stack([flat(align.permute(m, g, symmetry=symmetry)) for g in orders])
    for m in models
  ]
  first = flat(models[0])
  pair = each[1] @ each[2].T
  every = pair + (each[1] @ first)[:, None] + each[2] @ first
  values = [
    align.agreement(permuted(models, find(models, symmetry, s), symmetry))
    for s in range(4)
  ]
  assert all(np.isclose(every, value).any() for value in values)
  assert np.mean(every > max(values) + 1e-9) < 0.02
  assert np.mean(every > min(values) + 1e-9) < 0.1


def test_two_models_agree_as_by_weight_matching():
  symmetry = mlp(5, 9, 8, 3)
  models = [params(symmetry, i) for i in range(2)]
  found = permuted(models, find(models, symmetry), symmetry)
  again = align.weight_matching(
    found[0],
    found[1],
    symmetry=symmetry,
    key=jax.random.key(3),
    initial=align.identity(symmetry),
  )
  jax.tree.map(np.testing.assert_array_equal, again, align.identity(symmetry))


def test_integer_leaves_and_half_precision_are_kept():
  symmetry = align.Symmetry(mlp(4, 6, 5, 3).factors, (*LEAVES, ('n', ())))
  base = params(symmetry, 0) | {'n': jnp.asarray(3)}
  low = {k: x.astype(jnp.bfloat16) if k != 'n' else x for k, x in base.items()}
  draw = align.random(symmetry, jax.random.key(4), gauges=('permutation',))
  models = [low, align.permute(low, draw, symmetry=symmetry)]
  aligned = permuted(models, find(models, symmetry), symmetry)
  jax.tree.map(np.testing.assert_array_equal, aligned[1], low)


@pytest.mark.parametrize(
  ('count', 'options', 'message'),
  [
    (1, {}, 'merge_many: 1 models given'),
    (2, {'max_rounds': 0}, 'max_rounds=0'),
    (2, {'max_sweeps': 0}, 'max_sweeps=0'),
  ],
)
def test_arguments_are_checked(count, options, message):
  symmetry = mlp(4, 6, 5, 3)
  with pytest.raises(ValueError, match=message):
    find([params(symmetry, i) for i in range(count)], symmetry, **options)


def test_models_are_checked():
  symmetry = mlp(4, 6, 5, 3)
  model = params(symmetry, 0)
  with pytest.raises(ValueError, match="model 1: leaf 'a' has shape"):
    find([model, model | {'a': jnp.ones((4, 7))}], symmetry)
  with pytest.raises(ValueError, match='NaN or inf'):
    find([model, model | {'a': jnp.full((4, 6), jnp.nan)}], symmetry)
