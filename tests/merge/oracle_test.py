"""Sums, masks, slerp and weighted means against short numpy oracles."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import deltas, merge, tree, types

SHAPES = {'w': (4, 6), 'b': (5,), 's': (), 'k': (2, 2, 3, 4), 'one': (1,)}
DTYPES = pytest.mark.parametrize('dtype', ['float64', 'float32'])
SEEDS = (0, 1, 2)


@functools.cache
def stacked(seed: int, models: int = 3) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  draw = lambda shape: rng.normal(size=(models, *shape))
  x = {k: draw(shape) for k, shape in SHAPES.items()}
  if seed == 2:  # few values, zeros among them, and a model that is all zero
    x = {k: np.round(v) for k, v in x.items()}
    for v in x.values():
      v[1] = 0
  return {k: np.float32(v).astype(np.float64) for k, v in x.items()}


def jax_tree(x: Any, dtype: Any = 'float64') -> Any:
  return {k: jnp.asarray(v, dtype) for k, v in x.items()}


def of(seed: int, dtype: str) -> dict[str, np.ndarray]:
  """All shapes in float64; two of them in float32, to compile less."""
  x = stacked(seed)
  return x if dtype == 'float64' else {k: x[k] for k in ('w', 's')}


def same(found: Any, wanted: Any, dtype: str = 'float64') -> None:
  assert set(found) == set(wanted)
  atol = 1e-12 if dtype == 'float64' else 1e-6
  for k, v in wanted.items():
    np.testing.assert_allclose(found[k], v, rtol=atol, atol=atol, err_msg=k)


def column(values: Any, v: np.ndarray) -> np.ndarray:
  """[T] against [T, ...]."""
  return np.reshape(values, (-1, *[1] * (v.ndim - 1)))


@DTYPES
def test_sum_and_mean(dtype: str) -> None:
  for seed in SEEDS:
    x = stacked(seed)
    y = jax_tree(x, dtype)
    same(merge.sum(y), {k: v.sum(0) for k, v in x.items()}, dtype)
    same(merge.mean(y), {k: v.mean(0) for k, v in x.items()}, dtype)


def test_mean_of_bfloat16_is_taken_in_float32() -> None:
  x = {'w': jnp.asarray([[256.0], [1.0], [1.0], [1.0]], jnp.bfloat16)}
  assert merge.sum(x)['w'].tolist() == [260.0]  # 259 rounds to 260; 256 is lost
  assert merge.mean(x)['w'].dtype == jnp.bfloat16


@DTYPES
def test_weighted_mean_by_model_and_by_entry(dtype: str) -> None:
  for seed in SEEDS:
    x, w = stacked(seed), np.asarray([0.5, 2.0, 1.5])
    wanted = {k: (column(w, v) * v).sum(0) / w.sum() for k, v in x.items()}
    same(merge.weighted_mean(jax_tree(x, dtype), jnp.asarray(w)), wanted, dtype)
    entries = {k: np.abs(v) + 0.1 for k, v in stacked(seed + 3).items()}
    wanted = {
      k: (entries[k] * v).sum(0) / entries[k].sum(0) for k, v in x.items()
    }
    found = merge.weighted_mean(jax_tree(x, dtype), jax_tree(entries, dtype))
    same(found, wanted, dtype)


def test_weighted_mean_takes_lists_and_a_mixture_of_weights() -> None:
  x = {
    'a': jnp.asarray([[1.0, 2.0], [3.0, -2.0]]),
    'b': jnp.asarray([4.0, 8.0]),
  }
  merged = merge.weighted_mean(x, [3, 1])
  assert merged['a'].tolist() == [1.5, 1.0]
  assert merged['b'].tolist() == 5.0
  mixed = {'a': jnp.asarray([[1.0, 0.0], [0.0, 0.0]]), 'b': None}
  merged = merge.weighted_mean(x, mixed)
  assert merged['a'].tolist() == [1.0, 0.0]
  assert merged['b'].tolist() == 6.0


def test_weighted_mean_includes_mean_fisher_and_ties() -> None:
  x = jax_tree(stacked(0))
  same(merge.weighted_mean(x, [1.0, 1.0, 1.0]), merge.mean(x))
  fishers = {k: jnp.abs(v) + 0.1 for k, v in jax_tree(stacked(4)).items()}
  same(merge.weighted_mean(x, fishers), merge.fisher(x, fishers=fishers))
  agrees = {
    k: (v != 0).astype(v.dtype)
    for k, v in merge.elect_sign(merge.trim(x, density=0.5)).items()
  }
  same(merge.weighted_mean(x, agrees), merge.ties(x, density=0.5))


def test_weighted_mean_maps_over_weights() -> None:
  x = jax_tree(stacked(0))
  weights = jnp.asarray([[1.0, 2.0, 3.0], [1.0, 0.0, 0.0]])
  mapped = jax.vmap(lambda w: merge.weighted_mean(x, w))(weights)
  same({k: v[1] for k, v in mapped.items()}, {k: v[0] for k, v in x.items()})


def oracle_fisher(
  x: Any, f: Any, floor: Any, coefs: Any, normalize: bool
) -> dict[str, np.ndarray]:
  floor = np.broadcast_to(np.asarray(floor, float), 3)
  norm = np.sqrt(sum((v.reshape(3, -1) ** 2).sum(1) for v in f.values()))
  coefs = coefs / norm if normalize else coefs
  merged = {}
  for k, v in x.items():
    weight = np.maximum(f[k], column(floor, v)) * column(coefs, v)
    total = weight.sum(0)
    safe = np.where(total == 0, 1, total)
    merged[k] = np.where(total == 0, 0, (weight * v).sum(0) / safe)
  return merged


@DTYPES
@pytest.mark.parametrize('normalize', [False, True])
def test_fisher_is_the_definition(normalize: bool, dtype: str) -> None:
  for seed in SEEDS:
    x = stacked(seed)
    f = {k: v**2 * 1e-3 for k, v in stacked(seed + 3).items()}
    f['b'][:] = 0.0
    f['w'][:, 0] = 0.0
    coefs = np.asarray([0.2, 0.5, 0.3])
    for floor in (1e-6, 0.0, [1e-6, 0.0, 0.0]):
      found = merge.fisher(
        jax_tree(x, dtype),
        fishers=jax_tree(f, dtype),
        floor=floor,
        coefs=coefs,
        normalize=normalize,
      )
      same(found, oracle_fisher(x, f, floor, coefs, normalize), dtype)


def test_fisher_by_hand() -> None:
  x = {'w': jnp.asarray([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]])}
  f = {'w': jnp.asarray([[3.0, 0.0, 0.0], [1.0, 2.0, 0.0]])}
  plain = merge.fisher(x, fishers=f)['w']
  np.testing.assert_allclose(plain, [1.5, 3.0, 2.0], atol=2e-6)
  favoured = merge.fisher(x, fishers=f, floor=[1e-6, 0.0])['w']
  np.testing.assert_allclose(favoured, [1.5, 3.0, 1.0], atol=2e-6)
  none = merge.fisher(x, fishers=f, floor=0.0)['w']
  assert none.tolist() == [1.5, 3.0, 0.0]
  skewed = merge.fisher(x, fishers=f, coefs=[1.0, 3.0], floor=0.0)['w']
  assert skewed.tolist() == [2.0, 3.0, 0.0]


def test_fisher_lies_between_the_models_and_normalises_scale_away() -> None:
  x, f = jax_tree(stacked(0)), jax_tree(stacked(3))
  f = {k: v**2 for k, v in f.items()}
  merged = merge.fisher(x, fishers=f)
  for k, v in merged.items():
    assert bool((x[k].min(0) - 1e-12 <= v).all())
    assert bool((v <= x[k].max(0) + 1e-12).all())
  loud = {k: v.at[1].multiply(100) for k, v in f.items()}
  normal = lambda f: merge.fisher(x, fishers=f, floor=0.0, normalize=True)
  same(normal(loud), normal(f))
  other = merge.fisher(x, fishers=loud)
  assert not np.allclose(other['w'], merged['w'], atol=1e-2)


def gram(rows: np.ndarray, axes: tuple[int, ...] = (0,)) -> types.Gram:
  """From rows ``[T, groups, n, d]``."""
  matrix = np.einsum('tgni,tgnj->tgij', rows, rows) / rows.shape[2]
  return types.Gram(
    jnp.asarray(matrix), jnp.full(len(rows), rows.shape[2]), axes
  )


def oracle_regmean(
  x: np.ndarray, g: np.ndarray, shrink: float, coefs: Any
) -> np.ndarray:
  """For kernels ``[T, in, out]`` and one group."""
  eye = np.eye(g.shape[-1])
  g = np.asarray(coefs)[:, None, None] * g * (eye + shrink * (1 - eye))
  return np.linalg.inv(g.sum(0)) @ (g @ x).sum(0)


@DTYPES
@pytest.mark.parametrize('shrink', [0.0, 0.9, 1.0])
def test_regmean_of_kernels_and_of_torch_weights(
  shrink: float, dtype: str
) -> None:
  for seed in SEEDS[:2]:
    rng = np.random.default_rng(seed)
    x = np.float32(rng.normal(size=(3, 4, 6))).astype(np.float64)
    g = gram(rng.normal(size=(3, 1, 40, 4)))
    matrix = np.asarray(g.matrix)[:, 0]
    for coefs in ([1.0, 1.0, 1.0], [0.6, 0.3, 0.1]):
      wanted = oracle_regmean(x, matrix, shrink, coefs)
      kernel, bias = jnp.asarray(x, dtype), jnp.asarray(x[:, 0], dtype)
      found = merge.regmean(
        {'w': kernel, 'b': bias},
        grams={'w': g, 'b': None},
        shrink=shrink,
        coefs=coefs,
      )
      mean = np.average(x[:, 0], axis=0, weights=coefs)
      same(found, {'w': wanted, 'b': mean}, dtype)
      turned = types.Gram(g.matrix, g.count, (1,))
      found = merge.regmean(
        {'w': jnp.swapaxes(kernel, 1, 2)},
        grams={'w': turned},
        shrink=shrink,
        coefs=coefs,
      )
      same(found, {'w': wanted.T}, dtype)


def test_regmean_is_stationary_and_reduces_to_means() -> None:
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(3, 4, 6)))
  g = gram(rng.normal(size=(3, 1, 40, 4)))
  ask = lambda g, shrink: np.asarray(
    merge.regmean({'w': x}, grams={'w': g}, shrink=shrink)['w']
  )
  w = ask(g, 1.0)
  pull = np.einsum('tij,tjk->ik', np.asarray(g.matrix)[:, 0], w - np.asarray(x))
  np.testing.assert_allclose(pull, 0, atol=1e-12)
  diagonal = np.diagonal(np.asarray(g.matrix)[:, 0], axis1=1, axis2=2)
  rows = np.einsum('ti,tio->io', diagonal / diagonal.sum(0), np.asarray(x))
  np.testing.assert_allclose(ask(g, 0.0), rows, atol=1e-12)
  alike = types.Gram(jnp.tile(g.matrix[:1], (3, 1, 1, 1)), g.count, (0,))
  np.testing.assert_allclose(ask(alike, 1.0), np.asarray(x).mean(0), atol=1e-12)


def test_regmean_fits_every_model_on_its_own_inputs() -> None:
  """A map shared by all models is recovered from any inputs."""
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(2, 1, 20, 3))
  rows[0, 0, :, 2] = 0  # model 0 never sees input 2, model 1 never input 0
  rows[1, 0, :, 0] = 0
  true = rng.normal(size=(3, 2))
  x = np.stack([true, true])
  x[0, 2] = 99.0
  x[1, 0] = -99.0
  merged = merge.regmean(
    {'w': jnp.asarray(x)}, grams={'w': gram(rows)}, shrink=1.0
  )
  np.testing.assert_allclose(merged['w'], true, atol=1e-10)


def test_regmean_averages_an_input_that_is_zero_in_all_models() -> None:
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(2, 1, 20, 3))
  rows[..., 1] = 0
  x = rng.normal(size=(2, 3, 2))
  for shrink in (0.5, 1.0):
    merged = merge.regmean(
      {'w': jnp.asarray(x)}, grams={'w': gram(rows)}, shrink=shrink
    )
    np.testing.assert_allclose(merged['w'][1], x[:, 1].mean(0), atol=1e-12)
    assert bool(jnp.isfinite(merged['w']).all())


def test_regmean_of_a_convolution_is_that_of_its_patches() -> None:
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 2, 1, 3, 4))
  g = gram(rng.normal(size=(2, 1, 30, 6)), (0, 1, 2))
  merged = merge.regmean({'w': jnp.asarray(x)}, grams={'w': g}, shrink=0.9)
  matrix = np.asarray(g.matrix)[:, 0]
  wanted = oracle_regmean(x.reshape(2, 6, 4), matrix, 0.9, [1, 1])
  np.testing.assert_allclose(
    merged['w'], wanted.reshape(2, 1, 3, 4), atol=1e-12
  )


def test_regmean_of_a_grouped_convolution_and_of_stacked_layers() -> None:
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 1, 2, 3, 8))  # 6 channels in 2 groups, 8 outputs
  g = gram(rng.normal(size=(2, 2, 30, 6)), (0, 1, 2))
  merged = merge.regmean({'w': jnp.asarray(x)}, grams={'w': g}, shrink=0.9)
  for i in range(2):
    part = x[..., 4 * i : 4 * i + 4].reshape(2, 6, 4)
    matrix = np.asarray(g.matrix)[:, i]
    wanted = oracle_regmean(part, matrix, 0.9, [1, 1]).reshape(1, 2, 3, 4)
    found = merged['w'][..., 4 * i : 4 * i + 4]
    np.testing.assert_allclose(found, wanted, atol=1e-12)
  layers = rng.normal(size=(2, 3, 4, 5))
  g = gram(rng.normal(size=(2, 3, 30, 4)), (1,))
  merged = merge.regmean({'w': jnp.asarray(layers)}, grams={'w': g}, shrink=0.9)
  for i in range(3):
    matrix = np.asarray(g.matrix)[:, i]
    wanted = oracle_regmean(layers[:, i], matrix, 0.9, [1, 1])
    np.testing.assert_allclose(merged['w'][i], wanted, atol=1e-12)


@DTYPES
def test_tall_masks_and_consensus_are_the_definition(dtype: str) -> None:
  for seed in SEEDS:
    x = stacked(seed)
    merged = {k: v[0] + v[2] / 2 for k, v in x.items()}
    lam = np.asarray([0.2, 0.4, 1.0])
    for threshold in (0.4, lam):
      wide = np.broadcast_to(threshold, 3)
      masks = {
        k: np.abs(v) > column(wide, v) * np.abs(merged[k] - v)
        for k, v in x.items()
      }
      family = merge.tall_masks(
        jax_tree(x, dtype),
        threshold=threshold,
        merged=jax_tree(merged, dtype),
      )
      for k in x:
        np.testing.assert_array_equal(family.masks[k], masks[k])
      for k in (0, 1, 2, 4):
        found = merge.consensus(
          jax_tree(x, dtype),
          threshold=threshold,
          min_tasks=k,
          merged=jax_tree(merged, dtype),
        )
        kept = {n: merged[n] * (m.sum(0) >= k) for n, m in masks.items()}
        same(found, kept, dtype)


def test_tall_masks_are_strict() -> None:
  # |tau| is exactly the threshold times |merged - tau|: not needed.
  x = {'w': jnp.asarray([[1.0, 0.0, 3.0], [2.0, 0.0, 1.0]])}
  assert merge.tall_masks(x, threshold=0.5).masks['w'].tolist() == [
    [False, False, True],
    [True, False, False],
  ]
  each = merge.tall_masks(x, threshold=[0.4, 2.0]).masks['w'].tolist()
  assert each == [[True, False, True], [False, False, False]]


def test_consensus_by_the_number_of_tasks() -> None:
  x = {'w': jnp.asarray([[1.0, 2.0, 0.0], [1.0, 0.1, 0.0]])}
  ask = lambda k: merge.consensus(x, threshold=0.5, min_tasks=k)['w'].tolist()
  total = merge.sum(x)['w'].tolist()
  assert ask(0) == total
  assert ask(1) == total
  assert ask(2) == [2.0, 0.0, 0.0]
  assert ask(3) == [0.0, 0.0, 0.0]


def test_tall_masks_recover_single_and_disjoint_experts() -> None:
  x = jax_tree(stacked(0))
  places = {
    k: np.arange(v[0].size).reshape(v[0].shape) % 3 for k, v in x.items()
  }
  disjoint = {
    k: jnp.stack([jnp.where(places[k] == t, v[t], 0.0) for t in range(3)])
    for k, v in x.items()
  }
  for threshold in (0.0, 0.4, 5.0):
    family = merge.tall_masks(disjoint, threshold=threshold)
    for t in range(3):
      expert = {k: v[t] for k, v in disjoint.items()}
      same(merge.materialize(family, t), expert)


def test_masks_shrink_as_the_threshold_grows() -> None:
  x, before = jax_tree(stacked(0)), None
  for threshold in (0.0, 0.2, 0.6, 2.0):
    masks = merge.tall_masks(x, threshold=threshold).masks
    if before is not None:
      assert all(bool((~masks[k] | before[k]).all()) for k in x)
    before = masks


def test_materialize_takes_a_traced_task() -> None:
  x = jax_tree(stacked(0))
  family = merge.tall_masks(x, threshold=0.4)
  mapped = jax.vmap(lambda t: merge.materialize(family, t))(jnp.arange(3))
  one = merge.materialize(family, 2)
  same({k: v[2] for k, v in mapped.items()}, one)


def test_dare_rescales_what_it_keeps() -> None:
  x, key = jax_tree(stacked(0)), jax.random.key(3)
  x = {k: x[k] for k in ('w', 's')}
  keep = lambda rescale: merge.dare(x, rate=0.4, key=key, rescale=rescale)
  plain = {k: np.asarray(v) for k, v in keep('none').items()}
  for k, v in plain.items():
    assert set(v[v != 0]) <= set(np.asarray(x[k]).ravel())
  same(keep('inverse'), {k: v / 0.6 for k, v in plain.items()})
  sums = lambda v: np.abs(v).reshape(3, -1).sum(1)
  for k, v in keep('l1').items():
    kept = sums(plain[k])
    factor = np.where(kept == 0, 0, sums(x[k]) / np.where(kept == 0, 1, kept))
    np.testing.assert_allclose(v, plain[k] * column(factor, v), atol=1e-12)


def test_dare_takes_uniforms_and_masks() -> None:
  x = {'w': jax_tree(stacked(0))['w']}
  uniforms = np.random.default_rng(5).uniform(size=x['w'].shape)
  kept = uniforms >= 0.4
  wanted = np.where(kept, np.asarray(x['w']) / 0.6, 0)
  for given in ({'uniforms': {'w': uniforms}}, {'mask': {'w': kept}}):
    found = jax.jit(lambda x, g: merge.dare(x, rate=0.4, key=None, **g))(
      x, given
    )
    np.testing.assert_allclose(found['w'], wanted, rtol=1e-6)


def test_means_do_not_depend_on_the_base() -> None:
  rng = np.random.default_rng(3)
  models = [{'w': jnp.asarray(rng.normal(size=(4, 3)))} for _ in range(3)]
  matrix = rng.normal(size=(3, 1, 6, 4))
  grams = {'w': types.Gram(jnp.asarray(np.swapaxes(matrix, -1, -2) @ matrix))}
  for call in (
    lambda x: merge.weighted_mean(x, [0.2, 0.3, 0.7]),
    lambda x: merge.regmean(x, grams=grams, shrink=0.9),
  ):
    found = [
      deltas.apply(base, call(deltas.stack(base, models)))['w']
      for base in models[:2]
    ]
    np.testing.assert_allclose(*found, atol=1e-12)


def test_dare_rescales_by_the_rule_of_rescale() -> None:
  """Norms below 1e-7 are not divided by."""
  w = jnp.asarray(stacked(0)['w'])
  x, key = {'w': w.at[1].multiply(1e-9)}, jax.random.key(3)
  keep = lambda rescale: merge.dare(x, rate=0.4, key=key, rescale=rescale)
  restored = keep('l1')['w']
  np.testing.assert_array_equal(restored[1], keep('none')['w'][1])
  assert np.abs(restored[0]).sum() == pytest.approx(np.abs(w[0]).sum())
  same({'w': restored}, merge.rescale(keep('none'), x))


def test_dare_at_rate_0_and_1() -> None:
  x, key = {'w': jnp.asarray(stacked(0)['w'])}, jax.random.key(3)
  for rescale in ('inverse', 'l1', 'none'):
    same(merge.dare(x, rate=0.0, key=key, rescale=rescale), x)
    nothing = merge.dare(x, rate=1.0, key=key, rescale=rescale)
    same(nothing, {k: np.zeros(v.shape) for k, v in x.items()})


def test_dare_keeps_the_stated_fraction_and_is_unbiased() -> None:
  x = {'w': jnp.ones((2, 100, 100))}
  for rate in (0.1, 0.9):
    kept = merge.dare(x, rate=rate, key=jax.random.key(0))['w']
    share = np.asarray((kept != 0).mean((1, 2)))
    bound = 4 * np.sqrt(rate * (1 - rate) / 10_000)
    np.testing.assert_allclose(share, 1 - rate, atol=bound)
  x, keys = (
    {'w': jnp.asarray([[1.0, -2.0, 0.5]])},
    jax.random.split(jax.random.key(1), 2000),
  )
  draws = jax.vmap(lambda key: merge.dare(x, rate=0.8, key=key)['w'])(keys)
  error = np.asarray(draws.std(0)) / np.sqrt(2000)
  np.testing.assert_array_less(np.abs(draws.mean(0) - x['w']), 4.5 * error)
  variance = np.asarray(x['w']) ** 2 * 0.8 / 0.2
  np.testing.assert_allclose(draws.var(0), variance, rtol=0.2)


def test_a_mask_of_dare_depends_only_on_key_name_and_model() -> None:
  leaf = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 7)))
  key = jax.random.key(0)
  drop = lambda x, key=key: merge.dare(x, rate=0.5, key=key)
  alone = drop({'block': {'w': leaf}})['block']['w']
  other = drop({'a': leaf[:, 0], 'block': {'v': leaf, 'w': leaf}, 'z': leaf})
  np.testing.assert_array_equal(other['block']['w'], alone)
  assert not np.array_equal(other['block']['v'], alone)
  masks = np.asarray(alone != 0)
  assert not np.array_equal(masks[0], masks[1])
  fewer = drop({'block': {'w': leaf[:2]}})['block']['w']
  np.testing.assert_array_equal(fewer, alone[:2])
  for dtype in (jnp.float32, jnp.bfloat16):
    low = drop({'block': {'w': leaf.astype(dtype)}})['block']['w']
    np.testing.assert_array_equal(np.asarray(low != 0), masks)
  again = jax.jit(drop)({'block': {'w': leaf}}, key)['block']['w']
  np.testing.assert_array_equal(again, alone)
  another = drop({'block': {'w': leaf}}, jax.random.key(1))['block']['w']
  assert not np.array_equal(another, alone)


def oracle_slerp(
  a: np.ndarray, b: np.ndarray, t: float, dot: Any = None, lerp: float = 1.0
) -> np.ndarray:
  aa, bb, ab = dot or ((a * a).sum(), (b * b).sum(), (a * b).sum())
  if aa * bb == 0:
    return (1 - t) * a + t * b
  theta = np.arccos(np.clip(ab / np.sqrt(aa * bb), -1, 1))
  if abs(np.cos(theta)) > lerp or abs(np.sin(theta)) < 1e-7:
    return (1 - t) * a + t * b
  parts = np.sin([(1 - t) * theta, t * theta]) / np.sin(theta)
  return parts[0] * a + parts[1] * b


@DTYPES
@pytest.mark.parametrize('scope', ['leaf', 'global'])
def test_slerp_is_the_definition(scope: str, dtype: str) -> None:
  for seed in SEEDS:
    x = of(seed, dtype)
    a, b = ({k: v[i] for k, v in x.items()} for i in (0, 2))
    total = lambda u, v: sum((u[k] * v[k]).sum() for k in u)
    dot = (total(a, a), total(b, b), total(a, b))
    for t in (0.0, 0.3, 1.0):
      for limit in (1.0, 0.3):
        found = merge.slerp(
          jax_tree(a, dtype),
          jax_tree(b, dtype),
          t=t,
          scope=scope,
          lerp_above=limit,
        )
        dots = dot if scope == 'global' else None
        # Leaves of one entry are parallel or opposite: interpolated linearly.
        wanted = {k: oracle_slerp(a[k], b[k], t, dots, limit) for k in a}
        same(found, wanted, dtype)


def test_slerp_ends_at_its_models_and_is_symmetric() -> None:
  x = jax_tree(stacked(0))
  a, b = ({k: v[i] for k, v in x.items()} for i in (0, 1))
  for scope in ('leaf', 'global'):
    same(merge.slerp(a, b, t=0.0, scope=scope), a)
    same(merge.slerp(a, b, t=1.0, scope=scope), b)
    there = merge.slerp(a, b, t=0.3, scope=scope)
    same(there, merge.slerp(b, a, t=0.7, scope=scope))


def test_slerp_keeps_a_common_norm_and_halves_the_angle() -> None:
  a, b = {'w': jnp.asarray([3.0, 0.0])}, {'w': jnp.asarray([0.0, 3.0])}
  half = merge.slerp(a, b, t=0.5)['w']
  np.testing.assert_allclose(half, [3 / np.sqrt(2)] * 2, atol=1e-15)
  third = merge.slerp(a, b, t=1 / 3)['w']
  np.testing.assert_allclose(third, [3 * np.sqrt(3) / 2, 1.5], atol=1e-15)


@DTYPES
def test_slerp_is_linear_for_parallel_opposite_and_zero_vectors(
  dtype: str,
) -> None:
  a = jnp.asarray([1.0, 2.0, -2.0], dtype)

  def mix(b: Any) -> Any:
    mixed = merge.slerp({'w': a}, {'w': b}, t=0.25)['w']
    return mixed.sum(), mixed

  both = jax.jit(jax.value_and_grad(mix, has_aux=True))
  for b in (a, 3 * a, -a, -2 * a, 0 * a):
    (_, found), slope = both(b)
    same({'w': found}, {'w': 0.75 * a + 0.25 * b}, dtype)
    assert bool(jnp.isfinite(slope).all())


def test_slerp_of_tiny_and_of_huge_vectors() -> None:
  for size in (1e-12, 1e12):
    a, b = jnp.asarray([[size, 0.0], [0.0, size]], jnp.float32)
    half = merge.slerp({'w': a}, {'w': b}, t=0.5)['w']
    np.testing.assert_allclose(half / size, [np.sqrt(0.5)] * 2, rtol=1e-6)


def test_slerp_copies_integers_of_the_first_model() -> None:
  a = {'w': jnp.asarray([1.0, 0.0]), 'n': jnp.asarray([3])}
  b = {'w': jnp.asarray([0.0, 1.0]), 'n': jnp.asarray([8])}
  for scope in ('leaf', 'global'):
    mixed = merge.slerp(a, b, t=0.5, scope=scope)
    assert mixed['n'].tolist() == [3]
    assert mixed['n'].dtype == a['n'].dtype
    np.testing.assert_allclose(mixed['w'], [np.sqrt(0.5)] * 2)


def test_a_merge_of_zeros_is_zero() -> None:
  x = {k: jnp.zeros_like(v) for k, v in jax_tree(stacked(0)).items()}
  for merged in (merge.sum(x), merge.mean(x), merge.mean_nonzero(x)):
    assert tree.norm(merged) == 0
