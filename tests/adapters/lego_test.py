"""LoRA-LEGO: clusters of rank-one units, checked on numpy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, tree

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
@pytest.mark.parametrize('invariant', [False, True])
def test_a_cluster_for_each_unit_is_the_sum(invariant: bool) -> None:
  loras = [lora(0, 1, 0.5), lora(1, 3, -2.0), lora(2, 2)]
  wanted = sum(dense(x['w']) for x in loras)
  plain = {'invariant': invariant, 'norms': False, 'outputs': False}
  for rank in (6, 9, 100):
    for pool in (loras, loras[::-1]):
      merged = adapters.lego(adapters.stack(pool), rank=rank, **plain)['w']
      assert merged.rank == min(rank, 9)
      np.testing.assert_allclose(dense(merged), wanted, rtol=0, atol=1e-13)
  # The factor of outputs is the root of the mean rank by the number of units.
  merged = adapters.lego(adapters.stack(loras), rank=6, invariant=invariant)
  np.testing.assert_allclose(dense(merged['w']), wanted * np.sqrt(2 / 6))
  # One centre less is not the sum.
  less = adapters.lego(adapters.stack(loras), rank=5, **plain)['w']
  assert np.abs(dense(less) - wanted).max() > 1e-2


@STRICT
def test_equal_loras_are_one_of_them() -> None:
  one = lora(3, 3, 0.7)
  same = adapters.stack([one] * 4)
  merged = adapters.lego(same)['w']
  np.testing.assert_allclose(dense(merged), dense(one['w']), atol=1e-13)
  # With a cluster for each they are added.
  merged = adapters.lego(same, rank=12, outputs=False)['w']
  np.testing.assert_allclose(dense(merged), 4 * dense(one['w']), atol=1e-13)


@STRICT
@pytest.mark.parametrize('norms', [False, True])
def test_planted_clusters_are_found(norms: bool) -> None:
  draw = np.random.default_rng(4).standard_normal
  centres = 3 * draw((4, IN + OUT))
  labels = np.arange(12) % 4
  pool = centres[labels] + 0.1 * draw((12, IN + OUT))
  # Units in any order, and LoRAs of different ranks.
  places = np.random.default_rng(5).permutation(12)
  split = np.split(places, [2, 7])
  loras = [
    {
      'w': adapters.Factors(
        jnp.asarray(pool[p, :IN]), jnp.asarray(pool[p, IN:].T), 1.0,
        (IN, OUT), VIEW,
      )
    }
    for p in split
  ]  # fmt: skip
  merged = adapters.lego(
    adapters.stack(loras), rank=4, norms=norms, outputs=False
  )['w']
  wanted = oracle(pool, labels, norms)
  np.testing.assert_allclose(dense(merged), wanted, rtol=0, atol=1e-12)
  scaled = adapters.lego(adapters.stack(loras), rank=4, norms=norms)['w']
  np.testing.assert_allclose(dense(scaled), wanted, rtol=0, atol=1e-12)


@STRICT
def test_a_fixed_point_of_lloyd() -> None:
  """Each unit of the result is the mean of the units that are nearest to it."""
  loras = [lora(t, 4) for t in range(5)]
  pool = units(loras)
  found = adapters.lego(
    adapters.stack(loras), rank=6, norms=False, outputs=False
  )['w']
  centres = np.concatenate([found.a, found.b.T], 1)
  distance = np.square(pool[:, None] - centres[None]).sum(-1)
  labels = distance.argmin(1)
  assert set(labels) == set(range(6))
  for c in range(6):
    np.testing.assert_allclose(centres[c], pool[labels == c].mean(0))
  # Better than the best of many random starts, or nearly.
  assert distance.min(1).sum() < 1.02 * min(
    lloyd(pool, 6, seed) for seed in range(20)
  )


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
  loras = [lora(t, 3, 0.5 + t) for t in range(3)]
  stack = adapters.stack(loras)['w']
  draw = np.random.default_rng(6)
  c = draw.choice([-1.0, 1.0], (3, 3)) * np.exp(draw.standard_normal((3, 3)))
  other = tree.map(
    lambda x: x, stack.__class__(
      stack.a * c[..., None], stack.b / c[:, None], stack.scale,
      stack.shape, stack.view,
    ),
  )  # fmt: skip
  merge = lambda x, free: dense(
    adapters.lego({'w': x}, rank=4, invariant=free)['w']
  )
  np.testing.assert_allclose(merge(other, True), merge(stack, True), atol=1e-12)
  assert np.abs(merge(other, False) - merge(stack, False)).max() > 1e-2
  # Units that differ by such factors alone are one cluster.
  same = adapters.stack([loras[0]] * 3)['w']
  turned = stack.__class__(
    same.a * c[..., None], same.b / c[:, None], same.scale, (IN, OUT), VIEW
  )
  np.testing.assert_allclose(
    dense(adapters.lego({'w': turned}, rank=3, invariant=True)['w']),
    dense(loras[0]['w']),
    atol=1e-12,
  )


def test_units_that_cancel_and_empty_clusters() -> None:
  one = lora(7, 2, dtype=np.float32)['w']
  minus = jax.tree.map(lambda x: -jnp.asarray(x), one)
  minus = minus.__class__(minus.a, minus.b, 1.0, (IN, OUT), VIEW)
  pool = adapters.stack([{'w': one}, {'w': minus}])
  # One cluster, whose mean is zero: its norm is not that of rounding errors.
  zero = adapters.lego(pool, rank=1)['w']
  assert zero.a.dtype == jnp.float32
  np.testing.assert_array_equal(dense(zero), 0)
  # With either sign they are equal.
  two = adapters.lego(pool, rank=2, invariant=True)['w']
  np.testing.assert_allclose(dense(two), dense(one), rtol=1e-4, atol=1e-5)
  # Three clusters of two different units, one of which stays empty.
  same = adapters.stack([{'w': one}, {'w': one}])
  three = adapters.lego(same, rank=3)['w']
  np.testing.assert_allclose(dense(three), dense(one), rtol=1e-4, atol=1e-5)
  none = jax.tree.map(jnp.zeros_like, same)
  np.testing.assert_array_equal(dense(adapters.lego(none)['w']), 0)


def test_blocks_dtypes_and_leaves_on_demand() -> None:
  """Each matrix of a leaf has clusters of its own, whatever holds the leaf."""
  view = tree.Matrix(batch=(0,), rows=(1,), columns=(2,))
  layers = [
    [lora(10 * t + g, 2, dtype=np.float32)['w'] for g in range(3)]
    for t in range(2)
  ]
  both = [
    {
      'w': adapters.Factors(
        jnp.stack([x.a for x in of_model]),
        jnp.stack([x.b for x in of_model]),
        0.5,
        (3, IN, OUT),
        view,
      ),
      'b': jnp.full(OUT, t, jnp.bfloat16),
    }
    for t, of_model in enumerate(layers)
  ]
  stack = adapters.stack(both)
  merged = jax.jit(lambda x: adapters.lego(x, rank=3))(stack)
  assert merged['b'].dtype == jnp.bfloat16
  assert merged['b'].tolist() == [0.5] * OUT
  whole = merged['w']
  assert (whole.a.shape, whole.b.shape) == ((3, 3, IN), (3, OUT, 3))
  for g in range(3):
    own = [
      {'w': adapters.Factors(x[g].a, x[g].b, 0.5, (IN, OUT), VIEW)}
      for x in layers
    ]
    alone = adapters.lego(adapters.stack(own), rank=3)['w']
    np.testing.assert_allclose(
      whole.b[g] @ whole.a[g], alone.b @ alone.a, rtol=1e-4, atol=1e-5
    )
  lazy = adapters.lego(jax.tree.map(tree.defer, stack), rank=3)
  assert tree.on_demand(lazy)
  np.testing.assert_allclose(
    tree.read(lazy['w'].b), whole.b, rtol=1e-4, atol=1e-5
  )
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), stack)
  assert adapters.lego(half)['w'].a.dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ('given', 'rank', 'message'),
  [('lora', 0, 'rank=0'), ('lora', 1.5, 'rank=1.5'), ('array', 1, 'no leaf')],
)
def test_mistakes(given: str, rank: Any, message: str) -> None:
  pool = {'w': jnp.ones((2, 3))}
  if given == 'lora':
    pool = adapters.stack([lora(0, 1, dtype=np.float32)])
  with pytest.raises(ValueError, match=message) as found:
    adapters.lego(pool, rank=rank)
  assert len(str(found.value)) < 200
