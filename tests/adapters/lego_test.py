"""LoRA-LEGO: clusters of rank-one units, checked on numpy in float64."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, mesh, tree

STRICT = pytest.mark.skipif(
  not jax.config.jax_enable_x64, reason='compares in float64'
)
VIEW = tree.Matrix(rows=(0,), columns=(1,))
IN, OUT = 7, 5


def lora(
  seed: int, rank: int, scale: float = 1.0, dtype: Any = np.float64
) -> Any:
  draw = np.random.default_rng(seed).standard_normal
  a, b = (jnp.asarray(draw(s), dtype) for s in ((rank, IN), (OUT, rank)))
  return {'w': adapters.Factors(a, b, scale, (IN, OUT), VIEW)}


def dense(factors: Any) -> np.ndarray:
  """Returns s A^T B^T, which has the layout of the leaf."""
  a, b = np.asarray(factors.a), np.asarray(factors.b)
  return np.asarray(factors.scale) * (b @ a).T


def units(loras: Any) -> np.ndarray:
  """Returns the units of all LoRAs, ``[N, in + out]``."""
  return np.concatenate(
    [
      np.concatenate([x.a, np.sign(x.scale) * x.b.T], 1)
      * np.sqrt(np.abs(x.scale))
      for x in (y['w'] for y in loras)
    ]
  )


def oracle(pool: np.ndarray, labels: np.ndarray, norms: bool) -> np.ndarray:
  """Returns the sum of the units' centres, given their clusters."""
  total = np.zeros((IN, OUT))
  for c in np.unique(labels):
    members = pool[labels == c]
    centre = members.mean(0)
    if norms:
      mean = np.linalg.norm(members, axis=1).mean()
      centre = centre * mean / np.linalg.norm(centre)
    total += np.outer(centre[:IN], centre[IN:])
  return total


@STRICT
def test_a_cluster_for_each_unit_is_the_sum() -> None:
  loras = [lora(0, 1, 0.5), lora(1, 3, -2.0), lora(2, 2)]
  wanted = sum(dense(x['w']) for x in loras)
  for rank, invariant in ((6, False), (100, True)):
    for pool in (loras, loras[::-1]):
      merged = adapters.lego(
        adapters.stack(pool), rank=rank, invariant=invariant,
        norms=False, outputs=False,
      )['w']  # fmt: skip
      assert merged.rank == min(rank, 9)
      np.testing.assert_allclose(dense(merged), wanted, rtol=0, atol=1e-13)


@STRICT
def test_equal_loras_are_one_of_them() -> None:
  one = lora(3, 3, 0.7)
  same = adapters.stack([one] * 4)
  merged = adapters.lego(same)['w']
  np.testing.assert_allclose(dense(merged), dense(one['w']), atol=1e-13)
  # With a cluster for each unit they are added, times (3 / 12)^(1/2).
  merged = adapters.lego(same, rank=12)['w']
  np.testing.assert_allclose(dense(merged), 2 * dense(one['w']), atol=1e-13)


# The tests below share their shapes, and with them compiled programs.
T, R, K = 3, 5, 4
PLAIN = {'norms': False, 'outputs': False}


def stacked(a: Any, b: Any, scale: Any = 1.0) -> Any:
  """Returns the stack of T LoRAs of rank R."""
  scales = jnp.broadcast_to(jnp.asarray(scale, jnp.float64), (T,))
  return {
    'w': adapters.Factors(
      jnp.asarray(a), jnp.asarray(b), scales, (IN, OUT), VIEW
    )
  }


@STRICT
@pytest.mark.parametrize('norms', [False, True])
def test_planted_clusters_are_found(norms: bool) -> None:
  draw = np.random.default_rng(4).standard_normal
  labels = np.arange(12) % K
  pool = 3 * draw((K, IN + OUT))[labels] + 0.1 * draw((12, IN + OUT))
  # Units in any order, and LoRAs of different ranks, filled with zeros.
  filled = np.zeros((T, R, IN + OUT))
  places = np.random.default_rng(5).permutation(12)
  for own, part in zip(filled, np.split(places, [2, 7]), strict=True):
    own[: len(part)] = pool[part]
  stack = stacked(filled[..., :IN], np.swapaxes(filled[..., IN:], 1, 2))
  # The mean rank is that of the merge: the factor of outputs is 1.
  merged = adapters.lego(stack, rank=K, norms=norms, outputs=norms)['w']
  wanted = oracle(pool, labels, norms)
  np.testing.assert_allclose(dense(merged), wanted, rtol=0, atol=1e-12)


@STRICT
def test_a_fixed_point_of_lloyd() -> None:
  """Each unit of the result is the mean of the units that are nearest to it."""
  loras = [lora(t, R, 0.5 + t) for t in range(T)]
  pool = units(loras)
  found = adapters.lego(adapters.stack(loras), rank=K, **PLAIN)['w']
  centres = np.concatenate([found.a, found.b.T], 1)
  distance = np.square(pool[:, None] - centres[None]).sum(-1)
  labels = distance.argmin(1)
  assert set(labels) == set(range(K))
  for c in range(K):
    np.testing.assert_allclose(centres[c], pool[labels == c].mean(0))
  # Better than from most random starts.
  random = [lloyd(pool, K, seed) for seed in range(20)]
  assert distance.min(1).sum() < np.median(random)


def lloyd(pool: np.ndarray, count: int, seed: int) -> float:
  """Returns the objective of k-means from random units."""
  draw = np.random.default_rng(seed)
  centres = pool[draw.choice(len(pool), count, replace=False)]
  for _ in range(50):
    distance = np.square(pool[:, None] - centres[None]).sum(-1)
    labels = distance.argmin(1)
    for c in set(labels):
      centres[c] = pool[labels == c].mean(0)
  return float(distance.min(1).sum())


@STRICT
def test_invariance_to_factors_of_a_unit() -> None:
  rng = np.random.default_rng(6)
  c = rng.choice([-1.0, 1.0], (T, R)) * np.exp(rng.standard_normal((T, R)))
  a, b = rng.standard_normal((T, R, IN)), rng.standard_normal((T, OUT, R))
  other = a * c[..., None], b / c[:, None]
  scale = np.asarray([0.5, 1.5, 2.5])
  merge = lambda pair, free: dense(
    adapters.lego(stacked(*pair, scale), rank=K, invariant=free)['w']
  )
  np.testing.assert_allclose(
    merge(other, True), merge((a, b), True), atol=1e-12
  )
  assert np.abs(merge(other, False) - merge((a, b), False)).max() > 1e-2
  # Units that differ by such factors alone are one cluster.
  a, b, scale = a[:1].repeat(T, 0), b[:1].repeat(T, 0), 1.0
  a[:, K:] = 0
  turned = a * c[..., None], b / c[:, None]
  np.testing.assert_allclose(merge(turned, True), (b[0] @ a[0]).T, atol=1e-12)


def test_units_that_cancel_and_empty_clusters() -> None:
  one = lora(7, 2, dtype=np.float32)['w']
  minus = dataclasses.replace(one, a=-one.a, b=-one.b)
  # One cluster, whose mean is zero: its norm is not that of rounding errors.
  zero = adapters.lego(adapters.stack([{'w': one}, {'w': minus}]), rank=1)['w']
  assert zero.a.dtype == jnp.float32
  np.testing.assert_array_equal(dense(zero), 0)
  # Three clusters of two different units, one of which stays empty.
  same = adapters.stack([{'w': one}, {'w': one}])
  three = adapters.lego(same, rank=3)['w']
  np.testing.assert_allclose(dense(three), dense(one), rtol=1e-4, atol=1e-5)
  none = jax.tree.map(np.zeros_like, same)
  np.testing.assert_array_equal(dense(adapters.lego(none, rank=3)['w']), 0)


def test_blocks_dtypes_and_leaves_on_demand() -> None:
  """Each matrix of a leaf has clusters of its own, whatever holds the leaf."""
  view = tree.Matrix(batch=(0,), rows=(1,), columns=(2,))
  draw = np.random.default_rng(8).standard_normal
  both = [
    {
      'w': adapters.Factors(
        np.float32(draw((2, 2, IN))), np.float32(draw((2, OUT, 2))), 0.5,
        (2, IN, OUT), view,
      ),
      'b': jnp.full(OUT, t, jnp.bfloat16),
    }
    for t in range(2)
  ]  # fmt: skip
  stack = adapters.stack(both)
  merged = adapters.lego(stack, rank=3)
  assert merged['b'].dtype == jnp.bfloat16
  assert merged['b'].tolist() == [0.5] * OUT
  whole = merged['w']
  assert (whole.a.shape, whole.b.shape) == ((2, 3, IN), (2, OUT, 3))
  for g in range(2):
    own = [
      {'w': adapters.Factors(x['w'].a[g], x['w'].b[g], 0.5, (IN, OUT), VIEW)}
      for x in both
    ]
    alone = adapters.lego(adapters.stack(own), rank=3)['w']
    np.testing.assert_allclose(
      np.asarray(whole.b[g]) @ np.asarray(whole.a[g]), dense(alone).T,
      rtol=1e-4, atol=1e-5,
    )  # fmt: skip
  lazy = adapters.lego(jax.tree.map(tree.defer, stack), rank=3)
  assert tree.on_demand(lazy)
  np.testing.assert_allclose(
    tree.read(lazy['w'].b), whole.b, rtol=1e-4, atol=1e-5
  )
  half = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, 'bfloat16'), stack
  )
  found = jax.eval_shape(adapters.lego, half)
  assert found['w'].a.dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ('given', 'rank', 'message'),
  [
    ('lora', 0, 'rank=0'),
    ('lora', 1.5, 'rank=1.5'),
    ('array', 1, 'no leaf'),
    ('single', 1, "leaf 'w' is of one LoRA: give adapters.stack"),
  ],
)
def test_mistakes(given: str, rank: Any, message: str) -> None:
  pool = {'w': jnp.ones((2, 3))}
  if given != 'array':
    pool = lora(0, 1, dtype=np.float32)
    pool = adapters.stack([pool]) if given == 'lora' else pool
  with pytest.raises(ValueError, match=message) as found:
    adapters.lego(pool, rank=rank)
  assert len(str(found.value)) < 200


@pytest.mark.needs_devices(2)
def test_sharded_loras_are_not_gathered() -> None:
  """Only the Gram matrix of the units is summed over devices."""
  devices = mesh.make('model:2', devices=jax.devices()[:2])
  spec = {'a': jax.P(None, None, 'model'), 'b': jax.P(None, 'model', None)}
  shapes = {'a': (2, 2, 64), 'b': (2, 32, 2)}
  leaves = {
    k: jax.ShapeDtypeStruct(
      shape, 'float32', sharding=jax.NamedSharding(devices, spec[k])
    )
    for k, shape in shapes.items()
  }
  scale = jax.ShapeDtypeStruct((2,), 'float32')
  stack = {
    'w': adapters.Factors(**leaves, scale=scale, shape=(64, 32), view=VIEW)
  }
  text = jax.jit(adapters.lego).lower(stack).compile().as_text()
  assert 'all-gather' not in text
  assert 'all-reduce' in text
  assert 'f32[4,4]' in text


def test_a_stack_of_different_dtypes_is_wide() -> None:
  half, single = (lora(0, 2, dtype=dtype) for dtype in ('bfloat16', 'float32'))
  found = adapters.stack([half, single])['w']
  dtypes = {x.dtype.name for x in (found.a, found.b, found.scale)}
  assert dtypes == {'float32'}
  np.testing.assert_array_equal(found.a[1], single['w'].a)
