"""Methods of mergekit against its stored results, and by their definitions.

The results were computed by ``merge_tensors`` of mergekit 0.1.5 (torch 2.14, a
CPU) in float64, tensor by tensor.
"""

from collections.abc import Callable
import functools
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import traces
from wsl import deltas, merge, tree

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden' / 'mergekit_methods.npz'
WEIGHTS = [0.6, 0.9, 0.2]
TIES_WEIGHTS = [1.0, 0.5, 0.7]
T = 0.9 / 1.5  # of weights 0.6 and 0.9


def load(case: str) -> dict[str, Any]:
  with np.load(GOLDEN) as file:
    found = {k: file[k] for k in file if k.startswith(f'{case}/')}
  return {k.split('/')[1]: jnp.asarray(v) for k, v in found.items()}


BASE = load('base')
MODELS = [load(f'model{t}') for t in range(3)]


def on_deltas(method: Callable[..., Any], **hyper: Any) -> Any:
  return deltas.apply(BASE, method(deltas.stack(BASE, MODELS), **hyper))


def rescaled(edit: Callable[..., Any], **hyper: Any) -> Any:
  taus = deltas.stack(BASE, MODELS)
  return merge.rescale(edit(taus, scope='leaf', **hyper), taus)


def ties_rescaled() -> Any:
  kept = rescaled(merge.trim, density=[0.5, 0.4, 0.9])
  weighted = {'weights': TIES_WEIGHTS}
  elected = merge.elect_sign(kept, dialect='mergekit', **weighted)
  return deltas.apply(BASE, merge.mean_nonzero(elected, **weighted))


def breadcrumbs_rescaled() -> Any:
  kept = rescaled(merge.breadcrumbs, density=[0.5, 0.4, 0.8], outliers=0.1)
  return deltas.apply(BASE, merge.sum(kept, weights=TIES_WEIGHTS))


CASES: dict[str, Callable[[], Any]] = {
  'nuslerp_0': lambda: merge.nuslerp(*MODELS[:2], t=T),
  'nuslerp_base': lambda: merge.nuslerp(*MODELS[:2], t=T, base=BASE),
  'nuslerp_rows': lambda: merge.nuslerp(*MODELS[:2], t=T, base=BASE, axis=-1),
  'nuslerp_columns': lambda: merge.nuslerp(*MODELS[:2], t=T, axis=0),
  'multislerp_0': lambda: merge.multislerp(MODELS, weights=WEIGHTS),
  'multislerp_base': lambda: merge.multislerp(
    MODELS, weights=WEIGHTS, base=BASE, normalize=False
  ),
  'karcher': lambda: merge.karcher(MODELS),
  'model_stock': lambda: on_deltas(merge.model_stock, dialect='mergekit'),
  'model_stock_rows': lambda: on_deltas(
    merge.model_stock, axis=-1, dialect='mergekit'
  ),
  'nearswap': lambda: merge.nearswap(BASE, MODELS[0], t=0.1),
  'arcee_fusion': lambda: merge.arcee_fusion(BASE, MODELS[0]),
  'ram': lambda: on_deltas(merge.ram, threshold=0.3),
  'ram_plus': lambda: on_deltas(
    merge.ram_plus, threshold=0.3, rate=0.2, limit=0.5
  ),
  'sce': lambda: on_deltas(merge.sce, select=0.6),
  'sce_all': lambda: on_deltas(merge.sce),
  'ties_rescale': ties_rescaled,
  'breadcrumbs_rescale': breadcrumbs_rescaled,
}


@pytest.mark.skipif(
  not jax.config.jax_enable_x64, reason='the results are of float64'
)
@pytest.mark.parametrize('case', CASES)
def test_methods_equal_mergekit(case: str) -> None:
  found, wanted = CASES[case](), load(case)
  assert set(found) == {'matrix', 'kernel', 'vector', 'tiny'}
  # The fixed point of the Karcher mean is reached to its tolerance.
  tolerance = 1e-6 if case == 'karcher' else 1e-7
  if case == 'breadcrumbs_rescale':
    # Of one entry, mergekit keeps floor(0.5), which is none; here one is kept.
    wanted.pop('tiny')
  for name, x in wanted.items():
    np.testing.assert_allclose(
      found[name], x, rtol=tolerance, atol=tolerance, err_msg=name
    )


def test_the_cases_differ() -> None:
  results = {case: load(case)['matrix'] for case in CASES}
  for case, x in results.items():
    for other, y in results.items():
      assert case == other or np.abs(x - y).max() > 1e-4, (case, other)


def test_the_karcher_mean_has_no_gradient() -> None:
  rng = np.random.default_rng(0)
  x = [rng.normal(size=20) for _ in range(4)]
  weights = np.asarray([1.0, 2.0, 0.5, 1.5])
  models = [{'w': jnp.asarray(v)} for v in x]
  mean = merge.karcher(models, weights=weights, steps=100, tolerance=1e-12)
  u = np.asarray(mean['w'])
  size = np.linalg.norm(u)
  wanted = sum(w * np.linalg.norm(v) for w, v in zip(weights, x)) / 5
  np.testing.assert_allclose(size, wanted, rtol=1e-6)
  u = u / size
  logs = np.zeros(20)
  for w, v in zip(weights, x):
    v = v / np.linalg.norm(v)
    angle = np.arccos(v @ u)
    logs += w * angle / np.sin(angle) * (v - (v @ u) * u)
  bound = 1e-9 if jax.config.jax_enable_x64 else 1e-5
  np.testing.assert_allclose(logs, 0, atol=bound)


def test_two_models_on_the_sphere_agree_with_slerp() -> None:
  rng = np.random.default_rng(1)
  a, b = ({'w': jnp.asarray(rng.normal(size=30))} for _ in range(2))
  unit = lambda m: {'w': m['w'] / jnp.linalg.norm(m['w'])}
  a, b = unit(a), unit(b)
  wanted = merge.slerp(a, b, t=0.5)['w']
  near = {'rtol': 1e-5, 'atol': 1e-6}
  found = merge.karcher([a, b], tolerance=1e-7)['w']
  np.testing.assert_allclose(found, wanted, **near)
  found = merge.multislerp([a, b], weights=[1, 1])['w']
  np.testing.assert_allclose(found, wanted, **near)
  found = merge.nuslerp(a, b, t=0.5)['w']
  np.testing.assert_allclose(found, wanted, **near)


def test_model_stock_is_the_point_nearest_to_the_centre() -> None:
  # Models on a sphere around the centre c, in its tangent plane: the paper's
  # geometry. The nearest point of their span to c is their mean, scaled.
  angle = 0.9
  x = np.asarray([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
  merged = np.asarray(merge.model_stock({'w': jnp.asarray(x)})['w'])
  mean = x.mean(0)
  wanted = 2 * np.cos(angle) / (1 + np.cos(angle)) * mean
  np.testing.assert_allclose(merged, wanted, rtol=1e-6)
  equal = merge.model_stock({'w': jnp.ones((3, 4))})['w']
  np.testing.assert_allclose(equal, 1.0, rtol=1e-6)


def test_dialects_of_model_stock() -> None:
  rng = np.random.default_rng(2)
  x = rng.normal(size=(4, 50))
  unit = x / np.linalg.norm(x, axis=1, keepdims=True)
  cosines = (unit @ unit.T)[np.triu_indices(4, 1)]
  factor = lambda c: 4 * c / (1 + 3 * c)
  merged = lambda **kw: merge.model_stock({'w': jnp.asarray(x)}, **kw)['w']
  near = {'rtol': 2e-4, 'atol': 1e-6}
  wanted = factor(cosines.mean()) * x.mean(0)
  np.testing.assert_allclose(merged(), wanted, **near)
  wanted = factor(np.cos(np.arccos(cosines).mean())) * x.mean(0)
  np.testing.assert_allclose(merged(dialect='fusionbench'), wanted, **near)
  # A product of norms below 1e-6 is raised to it: cosines shrink.
  pair = x[:2] * 1e-5
  scale = np.prod(np.linalg.norm(pair, axis=1)) / 1e-6
  c = scale * cosines[0]
  found = merge.model_stock({'w': jnp.asarray(pair)}, dialect='mergekit')['w']
  np.testing.assert_allclose(found, 2 * c / (1 + c) * pair.mean(0), rtol=1e-5)
  opposed = merge.model_stock({'w': jnp.asarray([[1.0, 0], [-1.0, 0]])})['w']
  assert opposed.tolist() == [0.0, 0.0]


def test_the_program_of_model_stock_grows_with_models_not_with_pairs() -> None:
  program = jax.make_jaxpr(merge.model_stock)({'w': jnp.ones((12, 3, 2))})
  assert str(program).count('reduce_sum') < 2 * 12


@pytest.mark.parametrize(('models', 'axis'), [(5, None), (8, 0)])
@traces.fresh()
def test_pairs_of_models_by_one_reduction(models, axis, monkeypatch) -> None:
  monkeypatch.setattr(
    jax.lax, 'platform_dependent', lambda *xs, cpu, default: default(*xs)
  )
  x = np.random.default_rng(models).normal(size=(models, 6, 7)) + 1
  axes = (0, 1) if axis is None else axis
  dot = lambda a, b: (a * b).sum(axes, keepdims=True)
  cosines = [
    dot(x[s], x[t]) / np.sqrt(dot(x[s], x[s]) * dot(x[t], x[t]))
    for s, t in itertools.combinations(range(models), 2)
  ]
  c = np.mean(cosines, axis=0)
  wanted = models * c / (1 + (models - 1) * c) * x.mean(0)
  merged = lambda x: merge.model_stock({'w': x}, axis=axis)['w']
  np.testing.assert_allclose(merged(jnp.asarray(x)), wanted, rtol=1e-12)
  step = 1e-6 * np.eye(42)[9].reshape(6, 7)
  change = lambda t: merged(jnp.asarray(x).at[0].add(t * step)).sum() / 2e-6
  found = jax.grad(lambda x: merged(x).sum())(jnp.asarray(x))[0].ravel()[9]
  np.testing.assert_allclose(found, change(1) - change(-1), rtol=1e-6)


@traces.fresh()
def test_equal_leaves_in_one_loop_have_the_means_of_each(monkeypatch) -> None:
  monkeypatch.setattr(
    jax.lax, 'platform_dependent', lambda *xs, cpu, default: default(*xs)
  )
  rng = np.random.default_rng(0)
  draw = lambda i: jnp.asarray(rng.normal(1, 1 + i, size=(3, 2)))
  models = [{f'x_{i}': draw(i) for i in range(6)} for _ in range(3)]
  merged = jax.jit(functools.partial(merge.karcher, weights=WEIGHTS))(models)
  assert list(merged) == list(models[0])
  for name, x in merged.items():
    leaf = [{name: model[name]} for model in models]
    wanted = merge.karcher(leaf, weights=WEIGHTS)[name]
    np.testing.assert_allclose(x, wanted, rtol=1e-12)


def test_karcher_of_a_traced_model_and_one_on_demand() -> None:
  half = tree.map(lambda x: x / 2, tree.defer(MODELS[1]))
  merged = jax.jit(lambda x: tree.read(merge.karcher([x, half])))(MODELS[0])
  wanted = merge.karcher([MODELS[0], tree.read(half)])
  for name, x in wanted.items():
    np.testing.assert_allclose(merged[name], x, rtol=1e-12)


def test_della_keeps_by_rank_and_stays_unbiased() -> None:
  row = np.linspace(0.1, 1.0, 10)
  x = {'w': jnp.asarray(np.tile(row, (1, 4000, 1)))}
  kept = merge.della(x, density=0.5, epsilon=0.4, key=jax.random.key(0))['w'][0]
  share = np.mean(np.asarray(kept) != 0, axis=0)
  wanted = 0.1 + 0.8 * np.arange(10) / 9
  assert np.abs(share - wanted).max() < 4 * 0.5 / np.sqrt(4000)
  mean = np.mean(np.asarray(kept), axis=0)
  bound = 5 * row * np.sqrt((1 / wanted - 1) / 4000)
  assert np.all(np.abs(mean - row) < bound)
  nonzero = np.asarray(kept)[:, 0]
  np.testing.assert_allclose(nonzero[nonzero != 0], 0.1 / 0.1, rtol=1e-5)


def test_della_ranks_along_the_axis_that_is_asked() -> None:
  rng = np.random.default_rng(3)
  x = rng.normal(size=(2, 6, 40))
  hyper = {'density': 0.5, 'epsilon': 0.3, 'key': jax.random.key(1)}
  rows = merge.della({'w': jnp.asarray(x)}, axis=1, **hyper)['w']
  columns = merge.della({'w': jnp.asarray(x)}, axis=0, **hyper)['w']
  assert np.any((rows != 0) != (columns != 0))
  last = merge.della({'w': jnp.asarray(x)}, axis=-1, **hyper)['w']
  np.testing.assert_array_equal(rows, last)


def test_della_restores_the_l1_norm_and_keeps_all_at_density_one() -> None:
  rng = np.random.default_rng(4)
  x = {'w': jnp.asarray(rng.normal(size=(2, 8, 16)))}
  hyper = {'epsilon': 0.2, 'key': jax.random.key(2)}
  kept = merge.della(x, density=0.5, rescale='l1', **hyper)['w']
  norm = lambda v: np.abs(np.asarray(v)).sum((1, 2))
  np.testing.assert_allclose(norm(kept), norm(x['w']), rtol=1e-5)
  whole = merge.della(x, density=1.0, epsilon=0.0, key=hyper['key'])['w']
  np.testing.assert_array_equal(whole, x['w'])
  plain = merge.della(x, density=0.5, rescale='none', **hyper)['w']
  chosen = np.asarray(plain) != 0
  np.testing.assert_array_equal(plain[chosen], x['w'][chosen])


def test_ram_plus_counts_over_the_model_or_the_leaf() -> None:
  x = {
    'a': jnp.asarray([[1.0, 1.0, 2.0], [0.0, 0.0, 2.0]]),
    'b': jnp.asarray([[1.0, 3.0], [0.0, 5.0]]),
  }
  hyper = {'rate': 1.0, 'limit': 10.0, 'threshold': 0.1}
  found = merge.ram_plus(x, **hyper)
  # Model 0 alone: two entries of a, one of b; shared: one each.
  assert found['a'].tolist() == [1.5, 1.5, 2.0]
  assert found['b'].tolist() == [2.0, 4.0]
  found = merge.ram_plus(x, scope='global', **hyper)
  np.testing.assert_allclose(found['a'], [1 + 2 / 3, 1 + 2 / 3, 2], rtol=1e-6)
  np.testing.assert_allclose(found['b'], [1 + 2 / 3, 4.0], rtol=1e-6)


def test_merges_of_a_model_with_itself_are_the_model() -> None:
  model = MODELS[0]
  zero = jax.tree.map(jnp.zeros_like, deltas.stack(BASE, MODELS[:2]))
  for merged in (
    merge.nuslerp(model, model, t=0.3),
    merge.multislerp([model] * 3, weights=[1, 2, 3]),
    merge.karcher([model] * 3),
    merge.nearswap(model, model, t=0.1),
    merge.arcee_fusion(model, model),
    deltas.apply(model, merge.model_stock(zero)),
    deltas.apply(model, merge.ram_plus(zero)),
    deltas.apply(model, merge.sce(zero)),
  ):
    for name, x in model.items():
      np.testing.assert_allclose(merged[name], x, rtol=2e-6, atol=1e-7)


def test_the_mean_of_opposite_models_is_their_sum() -> None:
  a = {'w': jnp.asarray([1.0, -2.0])}
  b = jax.tree.map(jnp.negative, a)
  merged = merge.multislerp([a, b], weights=[1, 1])['w']
  assert merged.tolist() == [0.0, 0.0]
  zeros = [{'w': jnp.zeros(3)}] * 2
  assert merge.karcher(zeros)['w'].tolist() == [0.0, 0.0, 0.0]
  assert merge.multislerp(zeros, weights=[1, 1])['w'].tolist() == [0.0] * 3


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda x: merge.model_stock({'w': x[:1]}), 'one model has no angle'),
    (lambda x: merge.model_stock({'w': x}, dialect='a'), 'dialect='),
    (
      lambda x: merge.della(
        {'w': x}, density=0.5, epsilon=0.6, key=jax.random.key(0)
      ),
      'between 0 and 1',
    ),
    (lambda x: merge.sce({'w': x}, select=1.5), r'sce\(select=1.5\)'),
    (lambda x: merge.sce({'w': x.astype(complex)}), "leaf 'w'"),
    (lambda x: merge.ram({'w': x}, threshold=-1), r'ram\(threshold=-1\)'),
    (lambda x: merge.ram({'w': x}, threshold=x), 'ram: threshold|threshold'),
    (lambda x: merge.ram_plus({'w': x}, scope='all'), 'ram_plus: scope='),
    (lambda x: merge.karcher([]), 'karcher: no models'),
    (
      lambda x: merge.multislerp([{'w': x}], weights=[1, 2]),
      r'multislerp: weights has shape \(2,\)',
    ),
    (
      lambda x: merge.nearswap({'w': x}, {'w': x[:1]}, t=1.0),
      "nearswap: b: leaf 'w' has shape",
    ),
    (lambda x: merge.rescale({'w': x}, {'w': x}, norm='l3'), 'rescale: norm='),
    (lambda x: merge.rescale({'w': x}, {'w': x[:1]}), 'different numbers'),
  ],
)
def test_bad_input_is_one_line(
  call: Callable[[Any], Any], message: str
) -> None:
  with pytest.raises(ValueError, match=message) as error:
    call(jnp.asarray([[1.0, 2.0], [3.0, 4.0]]))
  assert '\n' not in str(error.value)


def test_leaves_on_demand_give_the_same() -> None:
  stored = lambda m: tree.defer(m)
  lazy = [stored(m) for m in MODELS]
  pairs = [
    (merge.karcher(lazy), merge.karcher(MODELS)),
    (
      merge.nuslerp(*lazy[:2], t=0.3, base=stored(BASE)),
      merge.nuslerp(*MODELS[:2], t=0.3, base=BASE),
    ),
    (
      merge.arcee_fusion(lazy[0], lazy[1]),
      merge.arcee_fusion(MODELS[0], MODELS[1]),
    ),
  ]
  for found, wanted in pairs:
    assert tree.on_demand(found)
    for name, x in tree.read(found).items():
      np.testing.assert_array_equal(x, wanted[name])
