"""Mixtures of shards: expansion by hand, plain LoRA, gradients of shards."""

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, tree

KEY = jax.random.key(0)
# Neither size is a multiple of the number of shards.
N, OUT, LAYERS = 7, 5, 4
COUNTS = {'rank': 3, 'budget': 2, 'private': 1, 'shards': 2}
LAYER = jax.ShapeDtypeStruct((N, OUT), 'float32')
PARAMS = {f'layer_{k}/w': LAYER for k in range(LAYERS)} | {
  'head/w': jax.ShapeDtypeStruct((OUT, 2), 'float32'),
  'layer_0/bias': jax.ShapeDtypeStruct((OUT,), 'float32'),
}
ROLE = f'layer_#/w ({N}, {OUT})'


def drawn(**hyper: Any) -> tuple[Any, Any]:
  """Returns pools with B of random numbers, and tables."""
  found = adapters.mos(PARAMS, leaves='layer', key=KEY, **{**COUNTS, **hyper})
  draw = np.random.default_rng(0).standard_normal
  fill = lambda x: jnp.asarray(draw(x.shape), x.dtype)
  return jax.tree.map(fill, found.pools), found.tables


def by_hand(shards: Any, places: Any, size: int) -> np.ndarray:
  """Returns ``[r, size]``: the shards of each row, one after another."""
  return np.stack(
    [np.concatenate([shards[q] for q in row])[:size] for row in places]
  )


def test_rows_are_concatenated_shards() -> None:
  pools, tables = drawn(scale=0.5)
  assert list(tables) == [f'layer_{k}/w' for k in range(LAYERS)]
  assert {k: x.shape for k, x in pools[ROLE].items()} == {
    'a': (LAYERS * 2 * 2, 4),
    'b': (LAYERS * 2 * 2, 3),
  }
  found = adapters.expand(pools, tables)
  for name, table in tables.items():
    a = by_hand(np.asarray(pools[ROLE]['a']), table.a[0], N)
    b = by_hand(np.asarray(pools[ROLE]['b']), table.b[0], OUT).T
    np.testing.assert_array_equal(found[name].a, a)
    np.testing.assert_array_equal(found[name].b, b)
    # The forward pass is that of the plain LoRA.
    x = np.linspace(-1, 1, 2 * N, dtype=np.float32).reshape(2, N)
    np.testing.assert_allclose(
      adapters.project(x, found[name]), 0.5 * x @ a.T @ b.T, atol=1e-5
    )
    np.testing.assert_allclose(
      adapters.dense(found[name]), 0.5 * (b @ a).T, atol=1e-5
    )


def test_tables() -> None:
  """Private shards are of one layer, public ones of several; A and B differ."""
  _, tables = drawn()
  for side in ('a', 'b'):
    places = np.stack([getattr(x, side)[0] for x in tables.values()])
    private, public = places[:, :1], places[:, 1:]
    assert sorted(private.ravel()) == list(range(LAYERS * 2))
    assert public.min() >= LAYERS * 2
    assert public.max() < LAYERS * 4
    counts = collections.Counter(public.ravel().tolist())
    assert max(counts.values()) > 1
    for layer in public:
      assert len(set(layer.ravel().tolist())) == layer.size
  table = tables['layer_0/w']
  assert np.any(np.asarray(table.a) != np.asarray(table.b))
  _, again = drawn()
  np.testing.assert_array_equal(again['layer_0/w'].a, table.a)


def test_private_ranks_alone_are_plain_loras() -> None:
  pools, tables = drawn(rank=2, private=2, shards=1)
  found = adapters.expand(pools, tables)
  for k, factors in enumerate(found.values()):
    own = slice(2 * k, 2 * k + 2)
    np.testing.assert_array_equal(factors.a, pools[ROLE]['a'][own])
    np.testing.assert_array_equal(factors.b, pools[ROLE]['b'][own].T)


def test_the_gradient_of_a_shard_is_the_sum_over_its_places() -> None:
  pools, tables = drawn()
  weights = {
    k: np.random.default_rng(i).standard_normal((3, N)).astype('float32')
    for i, k in enumerate(tables)
  }

  def loss(pools: Any) -> Any:
    found = adapters.expand(pools, tables)
    return sum(jnp.sum(weights[k] * x.a) for k, x in found.items())

  gradient = jax.grad(loss)(pools)[ROLE]
  assert not np.any(gradient['b'])
  wanted = np.zeros(pools[ROLE]['a'].shape)
  for name, table in tables.items():
    padded = np.pad(weights[name], [(0, 0), (0, 1)]).reshape(3, 2, 4)
    for j, q in np.ndindex(3, 2):
      wanted[table.a[0, j, q]] += padded[j, q]
  np.testing.assert_allclose(gradient['a'], wanted, atol=1e-5)


def test_first_task_vectors_are_zero_and_layers_may_be_scanned() -> None:
  params = {'w': jax.ShapeDtypeStruct((LAYERS, N, OUT), 'float32')}
  views = {'w': tree.Matrix(batch=(0,), rows=(1,), columns=(2,))}
  pools, tables = adapters.mos(params, key=KEY, matrices=views, **COUNTS)
  found = adapters.expand(pools, tables)['w']
  assert (found.a.shape, found.b.shape) == ((4, 3, N), (4, OUT, 3))
  assert not np.any(found.b)
  size = np.abs(pools[f'w ({LAYERS}, {N}, {OUT})']['a']).max()
  assert 0.9 * N**-0.5 < size <= N**-0.5


@pytest.mark.parametrize(
  ('hyper', 'message'),
  [
    ({'rank': 0}, 'rank=0'),
    ({'private': 3}, 'private=3'),
    ({'budget': 1}, 'has 0 public ranks, 2 are needed'),
    ({'shards': 6}, '7 inputs and 5 outputs'),
    ({'leaves': 'bias'}, 'no leaf is a matrix'),
  ],
)
def test_mistakes(hyper: Any, message: str) -> None:
  hyper = {'leaves': 'layer', **COUNTS, **hyper}
  with pytest.raises(ValueError, match=message) as found:
    adapters.mos(PARAMS, key=KEY, **hyper)
  assert len(str(found.value)) < 200


def test_pools_of_another_mixture() -> None:
  _, tables = drawn()
  with pytest.raises(ValueError, match="expand: no pool 'layer_#/w"):
    adapters.expand({}, tables)
