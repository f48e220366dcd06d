"""Properties of every merge: one test for each, over the battery's rows."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import traces
from tests.merge import battery
from wsl import deltas, merge, scale, tree, types

METHODS, T = battery.METHODS, battery.T
first, expected = battery.first, battery.expected
same, stacked = battery.same, battery.stacked


def test_every_public_name_has_a_row() -> None:
  public = {
    name
    for name, value in vars(merge).items()
    if not name.startswith('_') and inspect.isfunction(value)
  }
  public |= {f'scale.{n}' for n in vars(scale) if n == 'by_depth'}
  rows = {name.split('/')[0] for name in METHODS if name[:6] != 'scale.'}
  assert not rows & {*battery.NO_ROW}
  assert public == rows | {*battery.NO_ROW, 'scale.by_depth'}


def test_every_exception_gives_a_reason_for_a_known_promise() -> None:
  for row in METHODS.values():
    assert set(row.but) <= set(battery.PROMISES)
    assert all(len(reason) > 10 for reason in row.but.values())


@pytest.mark.same_under_defaults('an identity that no setting changes')
@battery.keeping('identity')
def test_one_model_is_returned_unchanged(name: str) -> None:
  row, x = METHODS[name], stacked(1)
  y = row.call(x, row.sides(1), **first(row) | row.identity)
  wanted = x if row.gives == 'deltas' else jax.tree.map(lambda x: x[0], x)
  same(y, wanted)


@pytest.mark.same_under_defaults('an identity that no setting changes')
@battery.keeping('permutation')
def test_the_order_of_models_does_not_matter(name: str) -> None:
  row = METHODS[name]
  order = np.asarray([2, 0, 3, 1])
  turn = lambda values: jax.tree.map(lambda v: v[order], values)
  y = row.call(
    turn(stacked(T)),
    turn(row.sides(T)),
    **first(row),
  )
  wanted = expected(name)
  same(y, turn(wanted) if row.gives == 'deltas' else wanted, atol=1e-11)


def _and_zero(x: Any) -> Any:
  return jax.tree.map(lambda v: jnp.concatenate([v, jnp.zeros_like(v[:1])]), x)


@pytest.mark.same_under_defaults('an identity that no setting changes')
@battery.keeping('zero')
def test_a_zero_delta_is_neutral_up_to_its_factor(name: str) -> None:
  row, x, sides = (
    METHODS[name],
    stacked(T - 1),
    METHODS[name].sides(T - 1),
  )
  y = row.call(_and_zero(x), _and_zero(sides), **first(row))
  wanted = row.call(x, sides, **first(row))
  if row.gives == 'deltas':
    wanted = _and_zero(wanted)
  else:
    wanted = jax.tree.map(lambda v: v * row.zero(T - 1, v.ndim), wanted)
  same(y, wanted)


def test_a_zero_delta_without_information_is_neutral() -> None:
  x, fishers = stacked(3), battery.fishers(3)['fishers']
  grams = battery.grams(3)['grams']
  y = merge.fisher(_and_zero(x), fishers=_and_zero(fishers), floor=0.0)
  same(y, merge.fisher(x, fishers=fishers, floor=0.0))
  # Leaves without a Gram matrix are averaged with the coefficients.
  y = merge.regmean(
    _and_zero(x), grams=_and_zero(grams), shrink=0.9, coefs=[1.0, 1, 1, 0]
  )
  same(y, merge.regmean(x, grams=grams, shrink=0.9))


def _one_block(x: Any) -> Any:
  """Keeps one matrix of a tree: fewer programs are compiled."""
  return {'block_0': x['block_0']} if isinstance(x, dict) else x


def _degenerate(row: battery.Row, name: str) -> dict[str, Any]:
  """Returns stacks on which a formula may divide by zero."""
  x = stacked(T)
  first_of_all = lambda v: jnp.broadcast_to(v[:1], v.shape)
  outer = lambda v: v[:, :, :1] * v[:, :1] if v.ndim == 3 else v
  found = {
    'zero deltas': jax.tree.map(jnp.zeros_like, x),
    'identical models': jax.tree.map(first_of_all, x),
    'matrices of rank one': jax.tree.map(outer, x),
  }
  if name.isidentifier():
    found['sixteen models'] = _one_block(stacked(16))
  if 'identity' in row.but and 'one model' not in row.but['identity']:
    found['one model'] = stacked(1)
  return found


@pytest.mark.same_under_defaults('divisions by zero do not depend on dtypes')
@pytest.mark.parametrize('name', METHODS)
def test_degenerate_models_have_finite_merges_and_zeros_are_kept(
  name: str,
) -> None:
  row = METHODS[name]
  for case, x in _degenerate(row, name).items():
    models = len(jax.tree.leaves(x)[0])
    sides = row.sides(models)
    if 'block_1' not in x:
      sides = {key: _one_block(value) for key, value in sides.items()}
    y = row.call(x, sides, **first(row))
    for path, leaf in tree.named(y).items():
      values = np.asarray(leaf)
      assert values.dtype == bool or np.isfinite(values).all(), (case, path)
      if case == 'zero deltas':
        assert not values.any(), path


@pytest.mark.same_under_defaults('property_test draws bfloat16 there')
@battery.keeping('dtype')
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
def test_jit_equals_eager_with_one_trace_and_eager_compiles_once(
  name: str,
) -> None:
  row, calls = METHODS[name], []

  def traced(x: Any, sides: Any, hyper: Any) -> Any:
    calls.append(1)
    return row.call(x, sides, **hyper)

  jitted = jax.jit(traced)
  sides = row.sides(T)
  same(
    jitted(stacked(T), sides, first(row)),
    expected(name),
    atol=1e-10,
  )
  second = {key: values[1] for key, values in row.hyper.items()}
  other = stacked(T, seed=1)
  # Other values and other hyperparameters need no further compilation.
  compiled = traces.programs()
  eager = row.call(other, sides, **second)
  assert traces.programs() == compiled
  same(jitted(other, sides, second), eager, atol=1e-10)
  assert len(calls) == 1


@pytest.mark.parametrize('name', ['ties', 'fisher', 'slerp/global'])
def test_constants_of_a_trace_are_merged(name: str) -> None:
  row = METHODS[name]
  call = lambda c: row.call(stacked(T), row.sides(T), **first(row))
  same(jax.jit(call)(1.0), expected(name), atol=1e-10)


@pytest.mark.same_under_defaults('an identity that no setting changes')
@pytest.mark.parametrize(
  'name', [name for name, row in METHODS.items() if 'vmap' not in row.but]
)
def test_vmap_over_hyperparameters_equals_a_loop(name: str) -> None:
  """In one program: each hyperparameter takes its second value once."""
  row, x = METHODS[name], stacked(T)
  sides = row.sides(T)
  call = lambda hyper: row.call(x, sides, **hyper)
  values = [first(row)] + [
    first(row) | {key: second} for key, (_, second) in row.hyper.items()
  ]
  together = {k: jnp.asarray([hyper[k] for hyper in values]) for k in row.hyper}
  found = jax.tree.map(np.asarray, jax.vmap(call)(together))
  for i, hyper in enumerate(values):
    same(jax.tree.map(lambda v, i=i: v[i], found), call(hyper))


def test_rows_without_numbers_have_none() -> None:
  for name, row in METHODS.items():
    assert ('vmap' in row.but) == (not row.hyper), name


@pytest.mark.same_under_defaults('its leaves are float32 in both runs')
@battery.keeping('gradient')
def test_gradients_of_float32_are_finite(name: str) -> None:
  """Those of float64 are compared with finite differences."""
  row = METHODS[name]
  x = jax.tree.map(lambda v: v.astype(np.float32), stacked(T))

  def loss(x: Any) -> Any:
    y = row.call(x, row.sides(T), **first(row))
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(y))

  gradients = jax.jit(jax.grad(loss))(x)
  assert jax.tree.structure(gradients) == jax.tree.structure(x)
  for path, g in tree.named(gradients).items():
    assert g.dtype == np.float32, path
    assert bool(jnp.isfinite(g).all()), path
  assert any(bool((g != 0).any()) for g in jax.tree.leaves(gradients))


@pytest.mark.skipif(
  not jax.config.jax_enable_x64, reason='differences need float64'
)
@pytest.mark.parametrize(
  'name',
  ['sum', 'weighted_mean', 'fisher', 'regmean', 'tsv', 'iso_c', 'iso_cts']
  + ['wudi', 'variance_corrected', 'metric_weighted']
  + ['tsv/scanned', 'iso_c/scanned', 'knots']
  + ['slerp', 'slerp/global', 'slerp/scanned'],
)
def test_gradients_equal_finite_differences(name: str) -> None:
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
  """Shards the models over four devices, and the last axis over two."""

  def put(v: Any) -> Any:
    last = 'leaf' if v.ndim > 1 and v.shape[-1] % 2 == 0 else None
    axes = ['models', *[None] * (v.ndim - 2), last][: v.ndim]
    spec = jax.sharding.PartitionSpec(*axes)
    return jax.device_put(v, jax.sharding.NamedSharding(mesh, spec))

  return jax.tree.map(put, x)


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.needs_devices(8)
@pytest.mark.same_under_defaults('where arrays are does not depend on dtypes')
def test_eight_devices_equal_one(name: str) -> None:
  row = METHODS[name]
  auto = (jax.sharding.AxisType.Auto,) * 2
  mesh = jax.make_mesh((4, 2), ('models', 'leaf'), auto)
  x = _spread(stacked(T), mesh)
  shards = x['block_0']['w'].addressable_shards
  assert {shard.data.shape for shard in shards} == {(1, 4, 4)}
  y = row.call(x, _spread(row.sides(T), mesh), **first(row))
  same(y, expected(name), atol=1e-10)


def _stored(x: Any, fetched: list[str], in_slices: bool = False) -> Any:
  def leaf(name: str, v: Any) -> Any:
    flat = np.asarray(v).reshape(-1)

    def fetch() -> np.ndarray:
      fetched.append(name)
      return np.asarray(v)

    def read_into(start: int, out: np.ndarray) -> None:
      fetched.append(name)
      out[:] = flat[start : start + out.size]

    slices = read_into if in_slices else None
    return tree.Stored(fetch, v.shape, v.dtype, slices)

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


@pytest.mark.parametrize('in_slices', [False, True])
@pytest.mark.parametrize('name', METHODS)
def test_leaves_on_demand_equal_leaves_in_memory(
  name: str, in_slices: bool
) -> None:
  row, base, fetched = METHODS[name], _base(), []
  stored = [_stored(m, fetched, in_slices) for m in [base, *_models(base)]]
  x = deltas.stack(stored[0], stored[1:])
  y = row.call(x, row.sides(T), **first(row))
  leaves = jax.tree.leaves(y)
  assert all(tree.on_demand(leaf) for leaf in leaves)
  assert not fetched
  if row.gives != 'delta':
    same(tree.read(y), expected(name))
    return
  merged = deltas.apply(stored[0], y)
  assert all(tree.on_demand(leaf) for leaf in jax.tree.leaves(merged))
  assert not fetched
  read = tree.read(merged)
  same(read, deltas.apply(base, expected(name)))
  parts: dict[str, list[np.ndarray]] = {}
  for leaf, values in tree.stream(tree.named(merged), chunk_bytes=64):
    parts.setdefault(leaf, []).append(values)
  for leaf, x in tree.named(read).items():
    assert np.concatenate(parts[leaf]).tobytes() == np.asarray(x).tobytes()


@pytest.mark.parametrize('name', ['fisher', 'regmean'])
def test_statistics_may_be_on_demand(name: str) -> None:
  row, fetched = METHODS[name], []
  sides = _stored(row.sides(T), fetched)
  y = row.call(stacked(T), sides, **first(row))
  assert tree.on_demand(y)
  same(tree.read(y), expected(name))
  assert fetched


@pytest.mark.same_under_defaults('an identity that no setting changes')
@battery.keeping('base shift')
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
