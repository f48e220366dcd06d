"""Merges of factors: the merges of their products, for every method."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.merge import battery
from wsl import adapters, deltas, merge, tree

T = battery.T
VIEW = tree.Matrix(rows=(1,), columns=(0,))
OWN = {
  'rmm': 'it approximates the factors, not their products',
  'knots': 'it takes the view of the factors: tests/merge/spectral',
}
# Methods that are linear in the task vectors.
LINEAR = {'sum', 'mean', 'weighted_mean', 'metric_weighted', 'scale.by_depth'}


def factored(models: int) -> Any:
  """Returns the battery's stack with one matrix in factors of full rank."""
  x = battery.stacked(models)
  w = np.asarray(x['block_0']['w'], np.float64)  # [T, out, in]
  mix = np.random.default_rng(0).normal(size=(models, 4, 4)) + 3 * np.eye(4)
  scales = 1.0 + np.arange(models)
  a = np.linalg.solve(mix, w) / scales[:, None, None]
  cast = lambda v: jnp.asarray(v, battery.FLOAT)
  one = adapters.Factors(cast(a), cast(mix), cast(scales), (4, 8), VIEW)
  return x | {'block_0': {'w': one}}


@pytest.mark.same_under_defaults('five rows run under both, below')
@pytest.mark.parametrize(
  'name', [n for n in battery.METHODS if n not in OWN and n.isidentifier()]
)
def test_a_merge_of_factors_is_the_merge_of_their_products(name: str) -> None:
  row = battery.METHODS[name]
  one = lambda x: {'block_0': x['block_0']}
  sides = {
    k: one(x) if isinstance(x, dict) else x for k, x in row.sides(T).items()
  }
  x, hyper = one(factored(T)), battery.first(row)
  y = row.call(x, sides, **hyper)
  leaves = jax.tree.leaves(y, is_leaf=deltas.is_factors)
  assert any(map(deltas.is_factors, leaves)) == (name in LINEAR)
  wanted = row.call(one(battery.stacked(T)), sides, **hyper)
  battery.same(deltas.dense(y), wanted, atol=1e-11)


@pytest.mark.parametrize(
  'name', ['sum', 'ties', 'dare', 'slerp', 'scale.by_depth']
)
def test_factors_beside_arrays(name: str) -> None:
  row = battery.METHODS[name]
  y = row.call(factored(T), row.sides(T), **battery.first(row))
  assert deltas.is_factors(y['block_0']['w']) == (name in LINEAR)
  assert not tree.on_demand(y)
  battery.same(deltas.dense(y), battery.expected(name), atol=1e-11)


@pytest.mark.same_under_defaults('what is computed does not depend on dtypes')
def test_products_are_computed_when_a_leaf_is_read() -> None:
  read: list[str] = []

  def stored(path: Any, x: Any) -> Any:
    def fetch() -> np.ndarray:
      read.append(jax.tree_util.keystr(path))
      return np.asarray(x)

    return tree.Stored(fetch, x.shape, x.dtype)

  x = jax.tree_util.tree_map_with_path(stored, factored(T))
  merged = merge.magmax(x)
  base = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), merged)
  base['step'] = jnp.asarray(1)
  model = deltas.apply(base, merged)
  assert not read
  tree.read(model['block_0'])
  assert set(read) == {f"['block_0']['w'].{f}" for f in ('a', 'b', 'scale')}
  wanted = battery.expected('magmax')
  battery.same(tree.read(merged), wanted, atol=1e-11)


def test_a_derivative_passes_through_the_products() -> None:
  w, one = battery.stacked(T)['block_0']['w'], factored(T)['block_0']['w']
  loss = lambda x: jnp.sum(merge.magmax({'w': x})['w'] ** 2)
  slope, dense = jax.jit(lambda *xs: [jax.grad(loss)(x) for x in xs])(one, w)
  b, scale = np.asarray(one.b), np.asarray(one.scale)
  wanted = np.einsum('toi,tor,t->tri', np.asarray(dense), b, scale)
  np.testing.assert_allclose(slope.a, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.same_under_defaults('what is called does not depend on dtypes')
def test_compositions_take_factors() -> None:
  x, dense = factored(T), battery.stacked(T)
  fold = lambda x: merge.fold(merge.running_mean(), x, order=[2, 0])
  layers = lambda x: merge.layerwise(
    x,
    method=lambda part, w: merge.sum(part, weights=w),
    parameters=jnp.arange(2.0 * T, dtype=battery.FLOAT).reshape(2, T),
    depth=r'block_(\d+)',
  )
  scaled = lambda x: merge.passthrough(merge.sum(x), scale={'w$': 2, '.*': 1})
  for call in (fold, layers, scaled):
    found, wanted = call(x), call(dense)
    battery.same(deltas.dense(found), wanted, atol=1e-11)
  assert deltas.is_factors(layers(x)['block_0']['w'])


def test_factors_are_added_to_a_base() -> None:
  base = jax.tree.map(lambda v: v[0], battery.stacked(T))
  base['step'] = jnp.asarray(3)
  coef = {'block_0': 0.5, '.*': 2.0}
  delta = merge.sum(factored(T))
  found = deltas.apply(base, delta, coef=coef)
  wanted = deltas.apply(base, deltas.dense(delta), coef=coef)
  battery.same(found, wanted, atol=1e-12)
  half = jax.tree.map(lambda v: v.astype(jnp.bfloat16), {'w': base['block_0']})
  found = deltas.apply(half, {'w': delta['block_0']})
  assert found['w']['w'].dtype == jnp.bfloat16
  other = base | {'block_0': {'w': base['block_0']['w'].T}}
  for start, given, message in (
    (base, factored(T), "'block_0/w' has shape (4, 8), the base (4, 8): merge"),
    (other, delta, "'block_0/w' has shape (4, 8), the base (8, 4): it is of"),
    (other | {'block_0': {'w': base['step']}}, delta, 'the base has no float'),
  ):
    with pytest.raises(ValueError) as caught:
      deltas.apply(start, given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
  'shapes',
  [
    ((2, 8), (4, 3)),
    ((2, 4), (8, 2)),
    ((3, 2, 8), (3, 4, 2)),
    ((8,), (4, 2)),
  ],
)
@pytest.mark.same_under_defaults('shapes do not depend on dtypes')
def test_ranks_and_shapes_that_disagree_are_named(shapes: Any) -> None:
  bad = adapters.Factors(*map(jnp.ones, shapes), 1.0, (4, 8), VIEW)
  for call in (
    deltas.dense,
    adapters.compress,
    lambda x: adapters.stack([x, x]),
    lambda x: deltas.apply({'w': jnp.ones((4, 8))}, x),
    lambda x: merge.nearswap(x, x, t=1.0),
    lambda x: merge.ties(x, density=0.5),
  ):
    with pytest.raises(ValueError, match="leaf 'w': factors A") as caught:
      call({'w': bad})
    message = str(caught.value)
    assert '\n' not in message
    assert len(message) <= 200


@pytest.mark.parametrize('method', [merge.sum, merge.magmax, merge.iso_c])
def test_factors_that_are_not_stacked_are_refused(method: Any) -> None:
  one = adapters.Factors(jnp.ones((2, 8)), jnp.ones((4, 2)), 1.0, (4, 8), VIEW)
  with pytest.raises(ValueError, match="leaf 'w' holds the factors of one tas"):
    method({'w': one})


def test_sums_over_entries_refuse_factors():
  view = tree.Matrix(rows=(0,), columns=(1,))
  one = deltas.Factors(jnp.ones((1, 3)), jnp.ones((2, 1)), 1.0, (3, 2), view)
  for call in (
    lambda: tree.norm({'w': one}),
    lambda: tree.total(jnp.sum, {'w': one}),
    lambda: tree.kth_magnitude({'w': one}, 1),
  ):
    with pytest.raises(ValueError, match=r'a leaf is Factors.*deltas.dense'):
      call()
  assert float(tree.norm(deltas.dense({'w': one}))) == 6**0.5
