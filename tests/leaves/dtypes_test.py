"""Leaves that are not plain floats: 64 bits without x64, complex, quantised.

Every test holds under the suite's settings and under JAX's defaults.
"""

from collections.abc import Callable
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from wsl import (
  align,
  checkpoint,
  deltas,
  landscape,
  merge,
  scale,
  stats,
  tree,
  types,
)

BIG = 5_000_000_000
INTEGERS: dict[str, Any] = {
  'int64': np.asarray([BIG, 1]),
  'uint64': np.asarray([2**63 + 1, 1], np.uint64),
  'uint32': np.asarray([2**32 - 1, 1], np.uint32),
  'int8': np.asarray([-128, 1], np.int8),
  'counter': np.asarray(BIG),
  'bool': np.asarray([True, False]),
}


def model(dtype: Any, seed: int, *more: str) -> dict[str, Any]:
  """Draws a model of a matrix and a vector, with given integer leaves."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(dtype)
  if np.dtype(dtype).kind == 'c':
    draw = lambda *shape: (
      rng.normal(size=shape) + 1j * rng.normal(size=shape)
    ).astype(dtype)
  floats = {'b/0/w': draw(6, 4), 'b/1/w': draw(5)}
  return floats | {name: INTEGERS[name] for name in more}


def stored(params: types.Params) -> types.Params:
  """Returns a model whose leaves are on demand."""
  leaf = lambda x: tree.Stored(lambda: x, x.shape, x.dtype)
  return jax.tree.map(leaf, params)


PLACES = {'memory': lambda x: x, 'demand': stored}


def close(found: Any, wanted: Any, tolerance: float) -> None:
  """Checks dtype and values of trees of arrays."""
  found, wanted = tree.named(tree.read(found)), tree.named(wanted)
  assert found.keys() == wanted.keys()
  for name, x in wanted.items():
    assert found[name].dtype == x.dtype, name
    y = np.asarray(found[name])
    np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance)


KEEPS: dict[str, Callable[..., Any]] = {
  'interpolate': lambda a, b: landscape.interpolate(a, b, 0.5),
  'slerp': lambda a, b: merge.slerp(a, b, t=0.5),
  'slerp global': lambda a, b: merge.slerp(a, b, t=0.5, scope='global'),
  'apply': lambda a, b: deltas.apply(a, merge.mean(deltas.stack(a, [b]))),
  'cast': lambda a, b: tree.cast(a, 'float16'),
  'compose': lambda a, b: scale.compose(a, scale.bank(a, [b]), 0.5),
}


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('function', KEEPS)
def test_integers_pass_unchanged(function: str, place: str) -> None:
  a, b = (model('float32', seed, *INTEGERS) for seed in (0, 1))
  found = KEEPS[function](*map(PLACES[place], (a, b)))
  for name, x in INTEGERS.items():
    kept = tree.read(found[name])
    assert kept.dtype == x.dtype
    np.testing.assert_array_equal(kept, x)


def test_integers_are_stacked_and_permuted_unchanged() -> None:
  a = {name: np.resize(x, 2) for name, x in INTEGERS.items()}
  both = tree.stack([a, a])
  axis = (((('h',),),),)
  symmetry = align.Symmetry(
    (align.Factor('h', 2),), tuple((name, axis[0]) for name in a)
  )
  table = {'h': jnp.asarray([1, 0], np.int32)}
  turned = align.permute(a, table, symmetry=symmetry)
  for name, x in a.items():
    np.testing.assert_array_equal(both[name], np.stack([x, x]))
    np.testing.assert_array_equal(turned[name], x[::-1])
    assert turned[name].dtype == x.dtype


@pytest.mark.parametrize('lazy', [True, False])
def test_a_sharding_narrows_no_leaf(tmp_path: pathlib.Path, lazy: bool) -> None:
  params = model('float64', 0, *INTEGERS)
  checkpoint.save(tmp_path, params)
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  found = tree.read(checkpoint.load(tmp_path, sharding=device, lazy=lazy))
  for name, x in params.items():
    assert found[name].dtype == x.dtype
    np.testing.assert_array_equal(np.asarray(found[name]), x)


# Each method of one model, or of equal ones, whose value is known.
MERGES: dict[str, Callable[..., Any]] = {
  'mean': merge.mean,
  'weighted_mean': lambda d: merge.weighted_mean(d, np.full(2, 0.3)),
  'mean_nonzero': merge.mean_nonzero,
  'metric_weighted': lambda d: merge.metric_weighted(
    d, metrics=[2.0, 2.0], penalty=3.0
  ),
  'fisher': lambda d: merge.fisher(
    d, fishers=jax.tree.map(lambda x: np.ones(x.shape), d), floor=1e-6
  ),
  'by_depth': lambda d: scale.by_depth(
    merge.mean(d), depth=r'b/(\d+)', start=1.0, end=1.0
  ),
  'trim': lambda d: merge.mean(merge.trim(d, density=1.0)),
  'trim leaf': lambda d: merge.mean(merge.trim(d, density=1.0, scope='leaf')),
  'breadcrumbs': lambda d: merge.mean(
    merge.breadcrumbs(d, density=1.0, outliers=0.0)
  ),
}


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('dtype', ['float64', 'complex128'])
@pytest.mark.parametrize('method', MERGES)
def test_64_bits_are_computed_in_64_bits(
  method: str, dtype: str, place: str
) -> None:
  base, *models = (model(dtype, seed) for seed in range(3))
  tau = deltas.stack(*map(PLACES[place], (base, [*models])))
  found = deltas.apply(PLACES[place](base), MERGES[method](tau), coef=0.5)
  means = jax.tree.map(lambda *x: sum(x) / 2, *models)
  wanted = jax.tree.map(lambda x, y: (x + y) / 2, base, means)
  close(found, wanted, 1e-14)


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('scope', ['leaf', 'global'])
def test_slerp_of_complex_leaves_is_that_of_real_vectors(
  scope: str, place: str
) -> None:
  a, b = (model('complex128', seed) for seed in range(2))
  real = lambda x: {
    k: np.stack([v.real, v.imag]) for k, v in tree.named(x).items()
  }
  wanted = tree.read(merge.slerp(real(a), real(b), t=0.3, scope=scope))
  found = merge.slerp(*map(PLACES[place], (a, b)), t=0.3, scope=scope)
  close(real(tree.read(found)), jax.tree.map(np.asarray, wanted), 1e-14)


@pytest.mark.parametrize('dtype', ['complex64', 'complex128'])
def test_complex_entries_are_ranked_by_magnitude(dtype: str) -> None:
  tau = model(dtype, 0)
  stack = jax.tree.map(lambda x: x[None], tau)
  sizes = np.sort([abs(v) for x in tau.values() for v in x.ravel()])[::-1]
  assert tree.kth_magnitude(stack, 5) == pytest.approx(sizes[4], rel=1e-6)
  kept = merge.trim(stack, density=5.5 / len(sizes))
  floor = (sizes[4] + sizes[5]) / 2
  close(kept, jax.tree.map(lambda x: np.where(abs(x) > floor, x, 0), stack), 0)
  assert tree.norm(tau) == pytest.approx(np.sqrt((sizes**2).sum()), rel=1e-6)


REFUSED: dict[str, Callable[..., Any]] = {
  'elect_sign': merge.elect_sign,
  'ties': lambda d: merge.ties(d, density=0.5),
  'pcb': lambda d: merge.pcb(d, density=0.5),
  'emr': merge.emr,
  'tsv': merge.tsv,
  'tsv_compress': merge.tsv_compress,
  'wudi': merge.wudi,
  'doge': merge.doge,
  'knots': lambda d: merge.knots(d, method=merge.sum),
  'iso_c': merge.iso_c,
  'iso_cts': merge.iso_cts,
  'fisher': lambda d: merge.fisher(d, fishers=d, floor=1e-6),
}


@pytest.mark.parametrize('method', REFUSED)
def test_methods_without_a_complex_definition_refuse(method: str) -> None:
  tau = jax.tree.map(lambda x: x[None], model('complex64', 0))
  with pytest.raises(
    ValueError, match=rf"^{method}.*leaf 'b/0/w' is complex64"
  ):
    REFUSED[method](tau)


def test_a_trace_narrows_no_leaf() -> None:
  base = {'w': np.asarray([1 / 3])}
  apply = jax.jit(lambda c: deltas.apply(base, base, coef=c))
  if jax.config.read('jax_enable_x64'):
    assert apply(0.0)['w'].dtype == np.float64
    return
  with pytest.raises(ValueError, match='set jax_enable_x64') as error:
    apply(0.0)
  assert '\n' not in str(error.value)
  with pytest.raises(ValueError, match=r"leaf 'w' is float64.*jax_enable_x64"):
    stats.gram(lambda p, x: x @ p['w'], {'w': np.ones((2, 2))}, [])


def int8(w: np.ndarray) -> dict[str, Any]:
  s = np.abs(w).max(1, keepdims=True) / 127
  return {'q': np.round(w / s).astype(np.int8), 'scale': s.astype('float32')}


def float8(w: np.ndarray) -> dict[str, Any]:
  s = np.abs(w).max() / 440
  q = (w / s).astype(ml_dtypes.float8_e4m3fn)
  return {'a.weight': q, 'a.weight_scale_inv': np.asarray([s], 'float32')}


def mask(w: np.ndarray) -> dict[str, Any]:
  return {'w': w, 'mask': w > 0}


DOORS: dict[str, Callable[..., Any]] = {
  'stack': lambda a, b: deltas.stack(a, [a, b]),
  'slerp': lambda a, b: merge.slerp(a, b, t=0.5),
  'interpolate': lambda a, b: landscape.interpolate(a, b, 0.5),
}


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('pack', [int8, float8, mask])
@pytest.mark.parametrize('door', DOORS)
def test_quantised_leaves_that_differ_are_refused(
  door: str, pack: Callable[..., Any], place: str
) -> None:
  rng = np.random.default_rng(0)
  a, b = (pack(rng.normal(size=(4, 8)).astype('float32')) for _ in range(2))
  a, b = map(PLACES[place], (a, b))
  match = rf"^{door}: .*leaf '\S+'.* differs from .*dequantise first"
  with pytest.raises(ValueError, match=match) as error:
    DOORS[door](a, b)
  assert '\n' not in str(error.value)
  DOORS[door](a, dict(a))


def test_counters_and_8_bit_floats_without_scales_may_differ() -> None:
  a = {'w': np.ones(2, ml_dtypes.float8_e5m2), 'n': np.asarray(BIG)}
  b = {'w': a['w'] * a['w'].dtype.type(2), 'n': np.asarray(BIG + 1)}
  found = deltas.apply(a, merge.mean(deltas.stack(a, [a, b])))
  assert found['w'].astype('float32').tolist() == [1.5, 1.5]
  assert int(found['n']) == BIG


OVERFLOWS = {'float16': 60000, ml_dtypes.float8_e4m3fn: 448, 'float32': 3e38}


@pytest.mark.parametrize('dtype', OVERFLOWS)
def test_a_result_that_overflows_is_an_error(
  tmp_path: pathlib.Path, dtype: Any
) -> None:
  top = OVERFLOWS[dtype]
  a, b = {'w': np.asarray([1, 1], dtype)}, {'w': np.asarray([top, 1], dtype)}
  wide = dtype != 'float32'
  delta = merge.mean(deltas.stack(a, [b]))
  match = r"apply: leaf 'w' has 1 NaN or infinite value"
  with pytest.raises(ValueError, match=match):
    deltas.apply(a, delta, coef=2.0)
  with pytest.raises(ValueError, match="interpolate: leaf 'w' has 1"):
    landscape.interpolate(a, b, 2.0)
  deltas.apply(a, delta, coef=2.0, check_finite=False)
  landscape.interpolate(a, b, 2.0, check_finite=False)
  on_demand = deltas.apply(stored(a), delta, coef=2.0)
  with pytest.raises(ValueError, match="save: leaf 'w'"):
    checkpoint.save(tmp_path, on_demand)
  assert not list(tmp_path.iterdir())
  checkpoint.save(tmp_path, on_demand, check_finite=False)
  if wide:
    found = deltas.apply(a, delta, coef=2.0, dtype='float32')
    assert found['w'].tolist() == [2 * top - 1, 1]


def test_values_that_the_base_had_are_kept() -> None:
  base = {'w': np.ones(2, 'float32'), 'mask': np.asarray([-np.inf, 0.0], 'f')}
  delta = {'w': np.ones(2, 'float32'), 'mask': np.zeros(2, 'float32')}
  assert deltas.apply(base, delta)['mask'].tolist() == [-np.inf, 0.0]


def test_a_singular_gram_is_an_error() -> None:
  base = {'w': np.zeros((4, 3), 'float32')}
  rng = np.random.default_rng(0)
  models = [{'w': rng.normal(size=(4, 3)).astype('float32')} for _ in range(2)]
  ones = types.Gram(jnp.ones((2, 1, 4, 4), 'float32'), jnp.ones(2, 'float32'))
  delta = merge.regmean(
    deltas.stack(base, models), grams={'w': ones}, shrink=1.0
  )
  if not np.isfinite(delta['w']).all():
    with pytest.raises(ValueError, match="apply: leaf 'w' has"):
      deltas.apply(base, delta)


@pytest.mark.parametrize('place', PLACES)
def test_outputs_have_the_dtype_asked_for(
  tmp_path: pathlib.Path, place: str
) -> None:
  a, b = (model('float32', seed, 'int64') for seed in range(2))
  x, y = map(PLACES[place], (a, b))
  tau = deltas.stack(x, [y], dtype='bfloat16')
  assert tree.read(tau['b/0/w']).dtype == jnp.bfloat16
  found = deltas.apply(x, merge.mean(deltas.stack(x, [y])), dtype='float64')
  assert tree.read(found['b/0/w']).dtype == np.float64
  assert tree.read(found['int64']).dtype == np.int64
  checkpoint.save(tmp_path, x, dtype='float16')
  read = checkpoint.load(tmp_path)
  close(read, tree.read(tree.cast(a, 'float16')), 0)
  lazy = tree.cast(checkpoint.load(tmp_path, lazy=True), 'float64')
  close(
    lazy, jax.tree.map(np.asarray, tree.read(tree.cast(read, 'float64'))), 0
  )


def test_a_cast_that_loses_is_refused() -> None:
  for dtype, message in (
    ('int8', 'expected a float'),
    ('float32', 'imaginary'),
  ):
    with pytest.raises(ValueError, match=message):
      tree.cast(model('complex64', 0), dtype)
  with pytest.raises(ValueError, match="cast: leaf 'w' has 1 NaN or infinite"):
    tree.cast({'w': np.asarray([1e6], 'float32')}, 'float16')


EXTENDED = np.ones(2, np.longdouble)


@pytest.mark.skipif(
  EXTENDED.dtype == np.float64, reason='the C compiler has no wider float'
)
@pytest.mark.parametrize(
  'call',
  [
    lambda x: deltas.stack(x, [x]),
    lambda x: deltas.apply(x, x),
    lambda x: tree.stack([x, x]),
    lambda x: tree.norm(x),
    lambda x: merge.slerp(x, x, t=0.5),
    lambda x: landscape.interpolate(x, x, 0.5),
    lambda x: tree.cast(x, 'float32'),
  ],
)
def test_floats_wider_than_64_bits_are_refused(call: Any) -> None:
  with pytest.raises(ValueError, match='which JAX does not have'):
    call({'w': EXTENDED})
