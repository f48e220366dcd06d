"""What every merge owes: one row for each public name, one test a promise.

A row that cannot keep a promise says why, in `but`: the reason is read by
whoever adds the next method, and a promise is never dropped in silence.
"""

from collections.abc import Mapping
import functools
import inspect
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import deltas, merge, scale, tree, types
from wsl.tree import _on_demand

T = 4
KEY = jax.random.key(7)
EMPTY: Mapping[str, Any] = MappingProxyType({})
NO_NUMBERS = 'it has no numeric hyperparameter'


class Row(NamedTuple):
  """One public name, and how it is called.

  Attributes:
    call: ``call(deltas, sides, **hyper) -> tree``.
    gives: ``'delta'``, ``'deltas'``, ``'model'`` or ``'family'``.
    hyper: numeric hyperparameters, each with two values.
    identity: hyperparameters at which one model gives itself.
    sides: statistics that depend on the number of models.
    zero: what a zero delta multiplies the result by: ``zero(T, ndim)``.
    but: promises not kept, each with its reason.
  """

  call: Any
  gives: str = 'delta'
  hyper: Mapping[str, tuple[float, float]] = EMPTY
  identity: Mapping[str, float] = EMPTY
  sides: Any = lambda models: {}
  zero: Any = lambda models, ndim: 1.0
  but: Mapping[str, str] = EMPTY


def _normal(seed: int, *shape: int) -> np.ndarray:
  """Multiples of 2**-20: sums with such a base are exact."""
  x = np.random.default_rng(seed).normal(size=shape)
  return np.round(x * 2**20) / 2**20


def _fishers(models: int) -> dict[str, Any]:
  positive = jax.tree.map(lambda x: jnp.abs(x) + 0.1, make(models, seed=5))
  return {'fishers': positive}


def _grams(models: int) -> dict[str, Any]:
  def gram(seed: int, d: int, axes: tuple[int, ...]) -> types.Gram:
    x = _normal(seed, models, 1, 3 * d, d)
    matrix = np.einsum('tgni,tgnj->tgij', x, x)
    return types.Gram(jnp.asarray(matrix), jnp.ones(models), axes)

  return {
    'grams': {
      'block_0': {'w': gram(1, 4, (0,))},
      'block_1': {'w': gram(2, 8, (1,)), 'scale': None},
      'step': None,
    }
  }


def _weights(models: int) -> dict[str, Any]:
  return {'weights': jnp.asarray(1.0 + np.arange(models))}


def _averaged(models: int, ndim: int) -> float:
  return models / (models + 1)


def _dare(x: Any, sides: Any, **hyper: Any) -> Any:
  return merge.dare(x, key=KEY, **hyper)


def _materialize(x: Any, sides: Any, **hyper: Any) -> Any:
  return merge.materialize(merge.tall_masks(x, **hyper), 0)


def _slerp(x: Any, sides: Any, **hyper: Any) -> Any:
  ends = [tree.map(_model, x, t=tree.Static(t)) for t in (0, -1)]
  return merge.slerp(*ends, **hyper)


def _slerp_global(x: Any, sides: Any, **hyper: Any) -> Any:
  return _slerp(x, sides, scope='global', **hyper)


def _model(x: Any, *, t: int) -> Any:
  return x[t]


def _by_depth(x: Any, sides: Any, **hyper: Any) -> Any:
  return scale.by_depth(x, depth=r'block_(\d+)/', **hyper)


def _with(method: Any, **fixed: Any) -> Any:
  return lambda x, sides, **hyper: method(x, **sides, **fixed, **hyper)


TRIM = {'density': (0.5, 0.25)}
RATE = {'rate': (0.5, 0.25)}
FIXED_MASK = 'a mask belongs to the number of a model'
ARC = 'it joins two models'
SPLIT = 'the share of each task falls with T'
SPECTRUM = 'it flattens the spectrum'

METHODS = {
  'sum': Row(_with(merge.sum), but={'vmap': NO_NUMBERS}),
  'mean': Row(_with(merge.mean), zero=_averaged, but={'vmap': NO_NUMBERS}),
  'weighted_mean': Row(
    _with(merge.weighted_mean),
    sides=_weights,
    but={'vmap': 'weights are an operand, see the oracles'},
  ),
  'mean_nonzero': Row(_with(merge.mean_nonzero), but={'vmap': NO_NUMBERS}),
  'trim': Row(
    _with(merge.trim), gives='deltas', hyper=TRIM, identity={'density': 1.0}
  ),
  'elect_sign': Row(
    _with(merge.elect_sign), gives='deltas', but={'vmap': NO_NUMBERS}
  ),
  'ties': Row(_with(merge.ties), hyper=TRIM, identity={'density': 1.0}),
  'ties/leaf': Row(
    _with(merge.ties, scope='leaf', reduce='max', dialect='mergekit'),
    hyper=TRIM,
    identity={'density': 1.0},
  ),
  'dare': Row(
    _dare,
    gives='deltas',
    hyper=RATE,
    identity={'rate': 0.0},
    but={'permutation': FIXED_MASK},
  ),
  'tall_masks': Row(
    _with(merge.tall_masks),
    gives='family',
    hyper={'threshold': (0.5, 1.0)},
    but={
      'identity': 'it gives a family: the row of materialize',
      'permutation': 'the masks move with the models',
      'zero': 'a family grows by a mask that is False: see the oracles',
      'dtype': 'masks are bools',
      'gradient': 'masks are bools',
      'base shift': 'a family is not added to a base',
    },
  ),
  'materialize': Row(
    _materialize,
    hyper={'threshold': (0.5, 1.0)},
    but={'permutation': 'it gives one member'},
  ),
  'consensus': Row(
    _with(merge.consensus),
    hyper={'threshold': (0.5, 1.0), 'min_tasks': (2, 1)},
    identity={'min_tasks': 1},
  ),
  'fisher': Row(
    _with(merge.fisher, normalize=True),
    sides=_fishers,
    hyper={'floor': (0.3, 0.0), 'coefs': (1.0, 2.0)},
    but={'zero': 'a zero delta with a Fisher diagonal is a vote for the base'},
  ),
  'regmean': Row(
    _with(merge.regmean),
    sides=_grams,
    hyper={'shrink': (0.9, 0.5), 'coefs': (1.0, 2.0)},
    but={'zero': 'a zero delta with a Gram matrix is a vote for the base'},
  ),
  'tsv': Row(
    _with(merge.tsv),
    but={'vmap': NO_NUMBERS, 'zero': SPLIT},
  ),
  'iso_c': Row(
    _with(merge.iso_c),
    zero=lambda models, ndim: 1.0 if ndim == 2 else _averaged(models, ndim),
    but={'vmap': NO_NUMBERS, 'identity': SPECTRUM},
  ),
  'iso_cts': Row(
    _with(merge.iso_cts),
    but={
      'vmap': 'common sets shapes: it is static',
      'identity': SPECTRUM,
      'zero': SPLIT,
    },
  ),
  'slerp': Row(
    _slerp,
    gives='model',
    hyper={'t': (0.3, 0.8), 'lerp_above': (1.0, 0.01)},
    but={'permutation': ARC, 'zero': ARC, 'base shift': ARC},
  ),
  'slerp/global': Row(
    _slerp_global,
    gives='model',
    hyper={'t': (0.3, 0.8)},
    but={'permutation': ARC, 'zero': ARC, 'base shift': ARC},
  ),
  'scale.by_depth': Row(
    _by_depth,
    gives='deltas',
    hyper={'start': (0.25, 1.0), 'end': (0.75, 0.5)},
    identity={'start': 1.0, 'end': 1.0},
  ),
}


@pytest.fixture(autouse=True, scope='module')
def _quick_to_compile() -> Any:
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def make(models: int, seed: int = 0, dtype: Any = jnp.float64) -> types.Deltas:
  """A stack of two matrices and a scalar, and an integer's None."""
  x = lambda i, *shape: jnp.asarray(
    _normal(10 * seed + i, models, *shape), dtype
  )
  return {
    'block_0': {'w': x(0, 4, 8)},
    'block_1': {'w': x(1, 4, 8), 'scale': x(2)},
    'step': None,
  }


@functools.cache
def stacked(models: int, seed: int = 0) -> types.Deltas:
  return make(models, seed)


def first(row: Row) -> dict[str, float]:
  return {name: values[0] for name, values in row.hyper.items()}


@functools.cache
def expected(name: str) -> Any:
  """The eager result, which all the other ways of asking must match."""
  row = METHODS[name]
  return row.call(stacked(T), row.sides(T), **first(row))


def same(found: Any, wanted: Any, atol: float = 1e-12) -> None:
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for path, x in tree.named(found).items():
    y = np.asarray(tree.named(wanted)[path])
    np.testing.assert_allclose(
      np.asarray(x), y, rtol=0, atol=atol, err_msg=path
    )


def keeping(promise: str) -> Any:
  """Parametrizes a test over the rows that make a promise."""
  names = [name for name, row in METHODS.items() if promise not in row.but]
  return pytest.mark.parametrize('name', names)


def test_every_public_name_has_a_row() -> None:
  public = {
    name
    for name, value in vars(merge).items()
    if not name.startswith('_') and inspect.isfunction(value)
  }
  public |= {f'scale.{n}' for n in vars(scale) if n == 'by_depth'}
  assert public == {
    name.split('/')[0] for name in METHODS if name[:6] != 'scale.'
  } | {'scale.by_depth'}


def test_every_exception_gives_a_reason_for_a_known_promise() -> None:
  promises = {
    *('identity', 'permutation', 'zero', 'dtype', 'vmap', 'gradient'),
    'base shift',
  }
  for row in METHODS.values():
    assert set(row.but) <= promises
    assert all(len(reason) > 10 for reason in row.but.values())


@keeping('identity')
def test_one_model_gives_itself(name: str) -> None:
  row, x = METHODS[name], stacked(1)
  y = row.call(x, row.sides(1), **first(row) | row.identity)
  wanted = x if row.gives == 'deltas' else jax.tree.map(lambda x: x[0], x)
  same(y, wanted)


@keeping('permutation')
def test_the_order_of_models_does_not_matter(name: str) -> None:
  row = METHODS[name]
  order = np.asarray([2, 0, 3, 1])
  turn = lambda values: jax.tree.map(lambda v: v[order], values)
  y = row.call(turn(stacked(T)), turn(row.sides(T)), **first(row))
  wanted = expected(name)
  same(y, turn(wanted) if row.gives == 'deltas' else wanted, atol=1e-11)


def _and_zero(x: Any) -> Any:
  return jax.tree.map(lambda v: jnp.concatenate([v, jnp.zeros_like(v[:1])]), x)


@keeping('zero')
def test_a_zero_delta_is_neutral_up_to_its_factor(name: str) -> None:
  row, x, sides = METHODS[name], stacked(T - 1), METHODS[name].sides(T - 1)
  y = row.call(_and_zero(x), _and_zero(sides), **first(row))
  wanted = row.call(x, sides, **first(row))
  if row.gives == 'deltas':
    wanted = _and_zero(wanted)
  else:
    wanted = jax.tree.map(lambda v: v * row.zero(T - 1, v.ndim), wanted)
  same(y, wanted)


def test_a_zero_delta_without_information_is_neutral() -> None:
  x, fishers = stacked(3), _fishers(3)['fishers']
  grams = _grams(3)['grams']
  y = merge.fisher(_and_zero(x), fishers=_and_zero(fishers), floor=0.0)
  same(y, merge.fisher(x, fishers=fishers, floor=0.0))
  # Leaves without a Gram matrix are averaged with the coefficients.
  y = merge.regmean(
    _and_zero(x), grams=_and_zero(grams), shrink=0.9, coefs=[1.0, 1, 1, 0]
  )
  same(y, merge.regmean(x, grams=grams, shrink=0.9))


@keeping('dtype')
def test_structure_and_bfloat16_are_kept_and_finite(name: str) -> None:
  row, dtype = METHODS[name], jnp.bfloat16
  x = jax.tree.map(lambda v: v.astype(dtype), stacked(T))
  y = row.call(x, row.sides(T), **first(row))
  shape = lambda v: v.shape if row.gives == 'deltas' else v.shape[1:]
  assert jax.tree.structure(y) == jax.tree.structure(x)
  for path, leaf in tree.named(y).items():
    assert leaf.dtype == dtype, path
    assert leaf.shape == shape(tree.named(x)[path]), path
    assert bool(jnp.isfinite(leaf).all()), path


@pytest.mark.parametrize('name', METHODS)
def test_jit_is_eager_in_one_trace_and_eager_compiles_once(name: str) -> None:
  row, traces = METHODS[name], []

  def traced(x: Any, sides: Any, hyper: Any) -> Any:
    traces.append(1)
    return row.call(x, sides, **hyper)

  jitted = jax.jit(traced)
  sides = row.sides(T)
  same(jitted(stacked(T), sides, first(row)), expected(name), atol=1e-10)
  second = {key: values[1] for key, values in row.hyper.items()}
  other = stacked(T, seed=1)
  # Calls with other values and other hyperparameters compile nothing more.
  compiled = _on_demand._run._cache_size()
  eager = row.call(other, sides, **second)
  assert _on_demand._run._cache_size() == compiled
  same(jitted(other, sides, second), eager, atol=1e-10)
  assert len(traces) == 1


@pytest.mark.parametrize('name', ['ties', 'fisher', 'slerp/global'])
def test_constants_of_a_trace_are_merged(name: str) -> None:
  row = METHODS[name]
  call = lambda c: row.call(stacked(T), row.sides(T), **first(row))
  same(jax.jit(call)(1.0), expected(name), atol=1e-10)


@pytest.mark.parametrize(
  ('name', 'hyper'),
  [
    (name, hyper)
    for name, row in METHODS.items()
    if 'vmap' not in row.but
    for hyper in row.hyper
  ],
)
def test_vmap_over_a_hyperparameter_is_a_loop(name: str, hyper: str) -> None:
  row = METHODS[name]
  values = row.hyper[hyper]
  call = lambda v: row.call(stacked(T), row.sides(T), **first(row) | {hyper: v})
  mapped = jax.vmap(call)(jnp.asarray(values))
  for i, value in enumerate(values):
    same(jax.tree.map(lambda v, i=i: v[i], mapped), call(value))


def test_rows_without_numbers_have_none() -> None:
  for name, row in METHODS.items():
    assert ('vmap' in row.but) == (not row.hyper), name


@keeping('gradient')
def test_gradients_are_finite(name: str) -> None:
  row = METHODS[name]

  def loss(x: Any) -> Any:
    y = row.call(x, row.sides(T), **first(row))
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(y))

  gradients = jax.jit(jax.grad(loss))(stacked(T))
  assert jax.tree.structure(gradients) == jax.tree.structure(stacked(T))
  for path, g in tree.named(gradients).items():
    assert bool(jnp.isfinite(g).all()), path
  assert any(bool((g != 0).any()) for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
  'name',
  ['sum', 'weighted_mean', 'fisher', 'regmean', 'tsv', 'iso_c', 'iso_cts']
  + ['slerp', 'slerp/global'],
)
def test_gradients_are_finite_differences(name: str) -> None:
  row, x = METHODS[name], stacked(2)
  weight, step = stacked(2, seed=3), stacked(2, seed=4)

  def loss(s: Any) -> Any:
    moved = jax.tree.map(lambda a, b: a + s * b, x, step)
    y = row.call(moved, row.sides(2), **first(row))
    parts = jax.tree.map(lambda a, b: jnp.sum(a * b[0]), y, weight)
    return sum(jax.tree.leaves(parts))

  both = jax.jit(jax.value_and_grad(loss))
  h = 1e-5
  difference = (both(h)[0] - both(-h)[0]) / (2 * h)
  np.testing.assert_allclose(both(0.0)[1], difference, rtol=1e-6)


def _spread(x: Any, mesh: jax.sharding.Mesh) -> Any:
  """Spreads the models over four devices, and the last axis over two."""

  def put(v: Any) -> Any:
    last = 'leaf' if v.ndim > 1 and v.shape[-1] % 2 == 0 else None
    axes = ['models', *[None] * (v.ndim - 2), last][: v.ndim]
    spec = jax.sharding.PartitionSpec(*axes)
    return jax.device_put(v, jax.sharding.NamedSharding(mesh, spec))

  return jax.tree.map(put, x)


@pytest.mark.parametrize('name', METHODS)
def test_eight_devices_are_one(name: str) -> None:
  row = METHODS[name]
  auto = (jax.sharding.AxisType.Auto,) * 2
  mesh = jax.make_mesh((4, 2), ('models', 'leaf'), auto)
  x = _spread(stacked(T), mesh)
  shards = x['block_0']['w'].addressable_shards
  assert {shard.data.shape for shard in shards} == {(1, 4, 4)}
  y = row.call(x, _spread(row.sides(T), mesh), **first(row))
  same(y, expected(name), atol=1e-10)


def _stored(x: Any, fetched: list[str]) -> Any:
  def leaf(name: str, v: Any) -> Any:
    def fetch() -> np.ndarray:
      fetched.append(name)
      return np.asarray(v)

    return tree.Stored(fetch, v.shape, v.dtype)

  return tree.map_named(leaf, x)


def _base() -> types.Params:
  floats = jax.tree.map(lambda x: x[0], stacked(1, seed=9))
  return floats | {'step': jnp.asarray(3)}


def _add(x: Any, y: Any) -> Any:
  return jax.tree.map(
    lambda a, b: a if b is None else a + b, x, y, is_leaf=lambda v: v is None
  )


def _models(base: types.Params) -> list[types.Params]:
  each = [jax.tree.map(lambda v, t=t: v[t], stacked(T)) for t in range(T)]
  return [_add(base, x) for x in each]


GLOBAL = ('trim', 'elect_sign', 'ties', 'ties/leaf', 'slerp/global')


@pytest.mark.parametrize('name', METHODS)
def test_leaves_on_demand_are_leaves_in_memory(name: str) -> None:
  row, base, fetched = METHODS[name], _base(), []
  stored = [_stored(m, fetched) for m in [base, *_models(base)]]
  x = deltas.stack(stored[0], stored[1:])
  y = row.call(x, row.sides(T), **first(row))
  leaves = jax.tree.leaves(y)
  assert all(tree.on_demand(leaf) for leaf in leaves)
  if name not in GLOBAL:
    assert not fetched
  if row.gives != 'delta':
    same(tree.read(y), expected(name))
    return
  fetched.clear()
  merged = deltas.apply(stored[0], y)
  assert all(tree.on_demand(leaf) for leaf in jax.tree.leaves(merged))
  assert not fetched
  same(tree.read(merged), deltas.apply(base, expected(name)))


@pytest.mark.parametrize('name', ['fisher', 'regmean'])
def test_statistics_may_be_on_demand(name: str) -> None:
  row, fetched = METHODS[name], []
  sides = _stored(row.sides(T), fetched)
  y = row.call(stacked(T), sides, **first(row))
  assert tree.on_demand(y)
  same(tree.read(y), expected(name))
  assert fetched


@keeping('base shift')
def test_a_shift_of_all_models_shifts_the_result(name: str) -> None:
  row, base = METHODS[name], _base()
  shift = jax.tree.map(lambda x: x[0], stacked(1, seed=8))
  moved = _add(base, shift)
  x = deltas.stack(moved, _models(moved))
  y = row.call(x, row.sides(T), **first(row))
  if row.gives == 'deltas':
    same(y, expected(name))
    return
  found = deltas.apply(moved, y, coef=0.5)
  wanted = deltas.apply(base, expected(name), coef=0.5)
  same(found, _add(wanted, shift))
  assert found['step'] == 3
