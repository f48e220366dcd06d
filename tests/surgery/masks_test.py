"""Masks, sparse adapters and sparse averages against numpy in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import deltas, merge, surgery, tree, types

RNG = np.random.default_rng(0)
W = RNG.normal(size=(6, 4))
PARAMS = {'a': {'w': jnp.asarray(W)}, 'v': jnp.asarray(RNG.normal(size=(8, 3)))}
BIAS = {'b': jnp.asarray(RNG.normal(size=4))}


def kept(values: np.ndarray, sparsity: float) -> np.ndarray:
  """Marks the largest entries by sorting them."""
  flat = np.abs(values).ravel()
  level = np.sort(flat)[::-1][flat.size - int(flat.size * sparsity) - 1]
  return np.abs(values) >= level


@pytest.mark.parametrize('sparsity', [0.0, 0.3, 0.75])
def test_masks_keep_the_largest_of_their_scope(sparsity: float) -> None:
  params = PARAMS | BIAS
  found = surgery.magnitude_masks(params, sparsity=sparsity)
  assert set(found) == {'a/w', 'v'}  # no bias
  both = np.concatenate([W.ravel(), np.ravel(params['v'])])
  wanted = kept(both, sparsity)
  np.testing.assert_array_equal(np.ravel(found['a/w']), wanted[: W.size])
  np.testing.assert_array_equal(np.ravel(found['v']), wanted[W.size :])
  found = surgery.magnitude_masks(params, sparsity=sparsity, scope='leaf')
  np.testing.assert_array_equal(found['a/w'], kept(W, sparsity))
  found = surgery.magnitude_masks(params, sparsity=sparsity, scope='output')
  wanted = np.stack([kept(column, sparsity) for column in W.T], axis=1)
  np.testing.assert_array_equal(found['a/w'], wanted)


def test_an_earlier_mask_stays_and_counts() -> None:
  first = surgery.magnitude_masks(PARAMS, sparsity=0.5)
  # The values outside the mask are large: they must not return.
  sparse = {
    'a': {'w': surgery.Masked(jnp.where(first['a/w'], W, 99.0), first['a/w'])},
    'v': surgery.mask(PARAMS, first)['v'],
  }
  second = surgery.magnitude_masks(sparse, sparsity=0.75)
  once = surgery.magnitude_masks(PARAMS, sparsity=0.75)
  for name, mask in second.items():
    np.testing.assert_array_equal(mask, once[name])
  # So are scores outside of the mask.
  scores = {'a/w': jnp.where(first['a/w'], W, 99.0), 'v': PARAMS['v']}
  scored = surgery.magnitude_masks(sparse, sparsity=0.75, scores=scores)
  for name, mask in scored.items():
    np.testing.assert_array_equal(mask, once[name])
  hundred = {'w': np.arange(100.0).reshape(10, 10)}
  found = surgery.magnitude_masks(hundred, sparsity=0.29)['w']
  assert int(found.sum()) == 71
  again = surgery.magnitude_masks(sparse, sparsity=0.1)
  assert all((again[k] == first[k]).all() for k in first)


def test_patterns_and_wanda() -> None:
  found = surgery.pattern_masks({'w': jnp.asarray(W)}, keep=1, of=3)['w']
  blocks = np.abs(W).reshape(2, 3, 4)
  wanted = blocks == blocks.max(1, keepdims=True)
  np.testing.assert_array_equal(found, wanted.reshape(6, 4))
  ties = surgery.pattern_masks({'w': jnp.ones((4, 1))}, keep=2, of=4)['w']
  assert ties[:, 0].tolist() == [True, True, False, False]
  x = RNG.normal(size=(20, 6)) * np.arange(6)
  gram = types.Gram(jnp.asarray(x.T @ x / 20)[None])
  scores = surgery.wanda_scores(PARAMS, {'a': {'w': gram}, 'v': None})
  norms = np.sqrt((x**2).mean(0))
  np.testing.assert_allclose(scores['a/w'], np.abs(W) * norms[:, None], 1e-12)
  mask = surgery.magnitude_masks(
    PARAMS, sparsity=0.5, scope='output', scores=scores, leaves='a/w'
  )['a/w']
  wanted = [kept(c, 0.5) for c in (np.abs(W) * norms[:, None]).T]
  np.testing.assert_array_equal(mask, np.stack(wanted, 1))


def test_merges_keep_masks_and_refuse_different_ones() -> None:
  masks = surgery.magnitude_masks(PARAMS, sparsity=0.5)
  models = [
    surgery.mask(jax.tree.map(lambda x, s=s: s + x, PARAMS), masks)
    for s in (0.0, 1.0, 3.0)
  ]
  tau = deltas.stack(models[0], models[1:])
  soup = deltas.apply(models[0], merge.mean(tau))
  wanted = np.where(masks['a/w'], W + 2.0, 0)
  np.testing.assert_allclose(surgery.unmask(soup)['a']['w'], wanted, 1e-14)
  # Singular values fill in zeros; the mask removes them.
  filled = deltas.apply(models[0], merge.iso_c(tau))
  assert np.any(np.asarray(filled['v'].values)[~np.asarray(masks['v'])])
  plain = np.asarray(surgery.unmask(filled)['v'])
  assert not plain[~np.asarray(masks['v'])].any()
  assert plain.any()
  other = surgery.mask(PARAMS, {k: ~m for k, m in masks.items()})
  with pytest.raises(ValueError, match='a/w/mask'):
    deltas.stack(models[0], [other])
  assert surgery.density(models[0]) == 0.5


def test_gradients_through_unmask_stay_in_the_mask() -> None:
  keep = jnp.asarray([True, False])

  def loss(values: jax.Array) -> jax.Array:
    weight = surgery.unmask({'w': surgery.Masked(values, keep)})['w']
    return jnp.sum((weight - 3.0) ** 2)

  assert jax.grad(loss)(jnp.asarray([1.0, 1.0])).tolist() == [-4.0, 0.0]


def test_sparse_adapters_keep_zeros() -> None:
  mask = surgery.magnitude_masks(PARAMS, sparsity=0.5)
  params = surgery.mask(PARAMS, mask)
  a, b = RNG.normal(size=(2, 6)), RNG.normal(size=(4, 2))
  view = tree.Matrix(rows=(0,), columns=(1,))
  one = deltas.Factors(jnp.asarray(a), jnp.asarray(b), 0.5, (6, 4), view)
  keep = np.asarray(mask['a/w'])
  product = 0.5 * (b @ a).T
  added = surgery.add_sparse(params, {'a': {'w': one}})
  wanted = np.where(keep, W + product, 0)
  np.testing.assert_allclose(added['a']['w'].values, wanted, 1e-13)
  scaled = surgery.add_sparse(params, {'a/w': one}, by='scale')
  wanted = np.where(keep, W * product, 0)
  np.testing.assert_allclose(scaled['a']['w'].values, wanted, 1e-13)
  units = surgery.unit_factors(params, rank=4)
  same = surgery.add_sparse(params, units, by='scale')
  assert (same['a']['w'].values == params['a']['w'].values).all()
  none = dataclasses.replace(one, b=jnp.zeros((4, 2)))
  same = surgery.add_sparse(params, {'a/w': none})
  assert (same['a']['w'].values == params['a']['w'].values).all()


@pytest.mark.parametrize('damping', [0.0, 0.1])
def test_reconstruction_is_least_squares_on_each_support(
  damping: float,
) -> None:
  x = RNG.normal(size=(30, 6)) @ RNG.normal(size=(6, 6))
  gram = types.Gram(jnp.asarray(x.T @ x / 30)[None])
  masks = {'a/w': jnp.asarray(RNG.random((6, 4)) < 0.5)}
  params = surgery.mask(PARAMS, masks)
  grams = {'a': {'w': gram}, 'v': None}
  found = surgery.reconstruct(params, PARAMS, grams, damping=damping)
  keep = np.asarray(masks['a/w'])
  ridge = np.sqrt(damping * np.trace(x.T @ x / 30) / 6 * 30) * np.eye(6)
  rows = np.concatenate([x, ridge])
  wanted = np.zeros((6, 4))
  for j in range(4):
    on = keep[:, j]
    wanted[on, j] = np.linalg.lstsq(rows[:, on], rows @ W[:, j])[0]
  np.testing.assert_allclose(found['a']['w'].values, wanted, 1e-10, 1e-12)
  error = lambda w: np.sum((x @ (w - W)) ** 2)
  assert error(wanted) < 0.9 * error(np.where(keep, W, 0))


def test_reconstruction_of_groups_and_of_unseen_inputs() -> None:
  # Two layers of a scan, one input that is never active.
  x = RNG.normal(size=(2, 30, 3)) * np.asarray([1.0, 0.0, 1.0])
  gram = np.einsum('lni,lnj->lij', x, x) / 30
  weight = RNG.normal(size=(2, 3, 2))
  mask = jnp.asarray(RNG.random((2, 3, 2)) < 0.7)
  params = surgery.mask({'w': jnp.asarray(weight)}, {'w': mask})
  grams = {'w': types.Gram(jnp.asarray(gram), axes=(1,))}
  found = surgery.reconstruct(params, {'w': jnp.asarray(weight)}, grams)
  for layer in range(2):
    for j in range(2):
      on = np.asarray(mask)[layer, :, j]
      got = np.asarray(found['w'].values)[layer, :, j]
      assert not got[~on].any()
      if on[1]:
        assert abs(got[1] - weight[layer, 1, j]) < 1e-12
      gradient = gram[layer] @ (got - weight[layer, :, j])
      np.testing.assert_allclose(gradient[on], 0, atol=1e-12)
  two = types.Gram(jnp.ones((1, 3, 3)))
  one = {'w': jnp.asarray(weight[0])}
  with pytest.raises(FloatingPointError, match="'w' is singular"):
    surgery.reconstruct(
      surgery.mask(one, {'w': jnp.ones((3, 2), bool)}), one, {'w': two}
    )


def test_systems_are_solved_in_turn(monkeypatch) -> None:  # type: ignore[no-untyped-def]
  # Three steps, the last of them filled up: one batch of systems at a time.
  from wsl.surgery._masks import reconstruct

  x = RNG.normal(size=(30, 6))
  gram = types.Gram(jnp.asarray(x.T @ x)[None])
  masks = {'a/w': jnp.asarray(RNG.random((6, 4)) < 0.5)}
  params = surgery.mask(PARAMS, masks)
  grams = {'a': {'w': gram}, 'v': None}
  whole = surgery.reconstruct(params, PARAMS, grams)['a']['w'].values
  monkeypatch.setattr(reconstruct, '_ENTRIES', 3 * 36)
  solve = jax.jit(lambda p: surgery.reconstruct(p, PARAMS, grams))
  parts = solve(params)['a']['w'].values
  np.testing.assert_allclose(parts, whole, 1e-12, 1e-14)


def test_soups_of_phases() -> None:
  phases = []

  def retrain(model: types.Params, phase: int) -> list[types.Params]:
    phases.append(surgery.density(model))
    shift = lambda x, s: dataclasses.replace(x, values=x.values + s)
    move = lambda s: jax.tree.map(
      lambda x: shift(x, s), model, is_leaf=surgery.is_masked
    )
    return [move(0.5), move(-0.5)]

  found = surgery.sparse_soups(PARAMS, retrain, sparsity=0.75, phases=2)
  assert phases == [0.5, 0.25]
  masks = surgery.magnitude_masks(PARAMS, sparsity=0.75)
  wanted = np.where(masks['a/w'], W, 0)
  np.testing.assert_allclose(surgery.unmask(found)['a']['w'], wanted, 1e-14)
  wrong = lambda model, phase: [
    surgery.mask(model, {k: ~m for k, m in surgery.masks(model).items()})
  ]
  with pytest.raises(ValueError, match="leaf 'a/w' of model 0 has another"):
    surgery.sparse_soups(PARAMS, wrong, sparsity=0.5, phases=1)


KEEP = {'w': jnp.ones((4, 2), bool)}
ONE = {'w': jnp.ones((4, 2))}
GRAM = types.Gram(np.ones((1, 3, 3)))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: surgery.magnitude_masks(ONE, sparsity=1.0), 'sparsity=1.0'),
    (
      lambda: surgery.magnitude_masks(ONE, sparsity=0.5, scope='outputs'),
      "did you mean 'output'",
    ),
    (
      lambda: surgery.magnitude_masks({'b': jnp.ones(3)}, sparsity=0.5),
      'no leaf to prune',
    ),
    (
      lambda: surgery.magnitude_masks(
        {'w': np.full((2, 2), np.nan)}, sparsity=0.5
      ),
      "leaf 'w' has 4 NaN",
    ),
    (
      lambda: surgery.magnitude_masks(
        {'w': np.ones((2, 2), int)}, sparsity=0.5
      ),
      'no leaf to prune',
    ),
    (lambda: surgery.wanda_scores(ONE, {'x': GRAM}), "no leaf 'x' of the Gram"),
    (lambda: surgery.wanda_scores(ONE, {'w': GRAM}), "'w' .* has other inputs"),
    (lambda: surgery.pattern_masks(ONE, keep=2, of=3), 'does not divide the 4'),
    (lambda: surgery.mask(ONE, {'x': KEEP['w']}), "'x' is no leaf"),
    (lambda: surgery.mask(ONE, {'w': ONE['w']}), "mask of 'w' is float"),
    (lambda: surgery.density(ONE), 'no leaf is masked'),
    (lambda: surgery.add_sparse(ONE, {'w': None}, by='mul'), "by='mul'"),
    (lambda: surgery.phase_sparsities(0.5, 0), 'phases=0'),
    (lambda: surgery.reconstruct(ONE, ONE, {'w': None}), 'no leaf has a Gram'),
  ],
)
def test_bad_arguments(call, message: str) -> None:  # type: ignore[no-untyped-def]
  with pytest.raises(ValueError, match=message) as error:
    call()
  assert '\n' not in str(error.value)
  assert len(str(error.value)) <= 200
