"""Extraction of factors: the nearest matrices of low rank, with their error."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, tree

STRICT = pytest.mark.skipif(
  not jax.config.jax_enable_x64, reason='compares in float64'
)


def draw(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal(shape)


def planted(seed: int, m: int, n: int, s: Any) -> np.ndarray:
  """Returns a matrix with the singular values s."""
  u = np.linalg.qr(draw(seed, m, len(s)))[0]
  v = np.linalg.qr(draw(seed + 1, n, len(s)))[0]
  return u * np.asarray(s) @ v.T


@STRICT
@pytest.mark.parametrize('shape', [(9, 7), (7, 9), (7, 7)])
def test_a_planted_low_rank_is_recovered(shape: tuple[int, int]) -> None:
  x = planted(0, *shape, [3.0, 1.0, 0.5])
  found = adapters.extract({'w': jnp.asarray(x)}, rank=5)
  factors = found.factors['w']
  # Singular values of rounding errors have no factors.
  assert factors.rank == 3
  assert factors.a.shape == (3, shape[0])
  assert factors.b.shape == (shape[1], 3)
  np.testing.assert_allclose(adapters.dense(factors), x, rtol=0, atol=1e-14)
  assert found.errors['w'] < 1e-14
  # The singular values are shared equally by both factors.
  for y in (factors.a, factors.b.T):
    np.testing.assert_allclose(y @ y.T, np.diag([3.0, 1.0, 0.5]), atol=1e-13)


@STRICT
@pytest.mark.parametrize('rank', [1, 3, 6])
def test_the_error_is_the_tail_of_the_singular_values(rank: int) -> None:
  x = draw(2, 8, 6)
  s = np.linalg.svd(x, compute_uv=False)
  tail = np.sqrt(np.sum(s[rank:] ** 2) / np.sum(s**2))
  found = adapters.extract({'w': jnp.asarray(x)}, rank=rank)
  product = adapters.dense(found.factors['w'])
  measured = np.linalg.norm(product - x) / np.linalg.norm(x)
  assert found.errors['w'] == pytest.approx(tail, abs=1e-14)
  assert measured == pytest.approx(tail, abs=1e-14)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_narrow_leaves_are_decomposed_in_float32(dtype: str) -> None:
  x = jnp.asarray(1e-3 * draw(3, 20, 12), dtype)
  wide = np.asarray(x, np.float64)
  found = adapters.extract({'w': x}, rank=4)
  s = np.linalg.svd(wide, compute_uv=False)
  tail = np.sqrt(np.sum(s[4:] ** 2) / np.sum(s**2))
  assert found.factors['w'].a.dtype == jnp.float32
  assert found.errors['w'] == pytest.approx(tail, rel=1e-5)
  # The error includes that of the dtype of the factors.
  rounded = adapters.extract({'w': x}, rank=12, dtype=jnp.bfloat16)
  product = np.asarray(adapters.dense(rounded.factors['w']), np.float64)
  measured = np.linalg.norm(product - wide) / np.linalg.norm(wide)
  assert rounded.factors['w'].b.dtype == jnp.bfloat16
  assert rounded.errors['w'] == pytest.approx(measured, rel=1e-3)
  assert 1e-3 < measured < 1e-2


def test_rank_by_energy() -> None:
  x = np.float32(planted(4, 8, 8, np.sqrt([50.0, 30.0, 15.0, 5.0])))
  ranks = {}
  for energy in (0.1, 0.49, 0.51, 0.79, 0.81, 0.94, 0.96, 1.0):
    found = adapters.extract({'w': jnp.asarray(x)}, energy=energy)
    ranks[energy] = found.factors['w'].rank
    assert 1 - found.errors['w'] ** 2 >= energy - 1e-6
  assert list(ranks.values()) == [1, 1, 2, 2, 3, 3, 4, 4]
  both = adapters.extract({'w': jnp.asarray(x)}, energy=0.96, rank=2)
  assert both.factors['w'].rank == 2


def test_randomised_iteration_is_near_the_best() -> None:
  key, view = (
    jax.random.key(0),
    {'w': tree.Matrix(batch=(0,), rows=(1,), columns=(2,))},
  )
  low = planted(7, 40, 60, [3.0, 1.0, 0.5])
  noisy = planted(9, 40, 60, 1.0 + 2.0 ** -np.arange(40.0))
  x = jnp.asarray(np.stack([low, noisy]), jnp.float32)
  found = adapters.extract({'w': x}, rank=4, matrices=view, key=key)
  first, second = np.asarray(adapters.dense(found.factors['w']), np.float64)
  np.testing.assert_allclose(first, low, rtol=0, atol=3e-6)
  s = np.linalg.svd(noisy, compute_uv=False)
  best = np.linalg.norm(s[4:])
  assert best < np.linalg.norm(second - noisy) < 1.01 * best
  again = adapters.extract({'w': x}, rank=4, matrices=view, key=key)
  np.testing.assert_array_equal(again.factors['w'].a, found.factors['w'].a)
  with pytest.raises(ValueError, match='give rank= too'):
    adapters.extract({'w': x}, energy=0.5, matrices=view, key=key)


def test_layouts_of_pytorch() -> None:
  """Embeddings are [tokens, d]; linear maps and convolutions [out, in, ...]."""
  delta = {
    'embed_tokens.weight': draw(0, 9, 4),
    'q_proj.weight': draw(1, 6, 4),
    'conv.weight': draw(2, 5, 3, 1, 1),
    'conv3.weight': draw(3, 5, 3, 2, 2),
    'norm.weight': draw(4, 4),
    'q_proj.bias': draw(5, 6),
    'ln.bias': np.zeros(4),
  }
  delta = {k: jnp.asarray(x, jnp.float32) for k, x in delta.items()}
  found = adapters.extract(delta, rank=12, matrices=tree.torch)
  shapes = {k: (f.a.shape, f.b.shape) for k, f in found.factors.items()}
  assert shapes == {
    'embed_tokens.weight': ((4, 9), (4, 4)),
    'q_proj.weight': ((4, 4), (6, 4)),
    'conv.weight': ((3, 3), (5, 3)),
    'conv3.weight': ((5, 12), (5, 5)),
  }
  assert set(found.rest) == {'norm.weight', 'q_proj.bias'}
  assert set(found.errors) == set(delta)
  for name, factors in found.factors.items():
    np.testing.assert_allclose(
      adapters.dense(factors), delta[name], rtol=0, atol=1e-5
    )


def test_scanned_layers_have_factors_each() -> None:
  x = jnp.asarray(draw(5, 3, 6, 2, 4), jnp.float32)
  views = {'w': tree.Matrix(batch=(0,), rows=(1,), columns=(2, 3))}
  found = adapters.extract({'w': x}, rank=2, matrices=views).factors['w']
  assert found.a.shape == (3, 2, 6)
  assert found.b.shape == (3, 8, 2)
  product = adapters.dense(found)
  for layer, one in zip(x, product):
    alone = adapters.extract({'w': layer.reshape(6, 8)}, rank=2).factors['w']
    wanted = adapters.dense(alone).reshape(6, 2, 4)
    np.testing.assert_allclose(one, wanted, atol=1e-5)


def test_leaves_on_demand_are_read_one_at_a_time() -> None:
  held: list[str] = []

  def stored(name: str, x: np.ndarray) -> tree.Stored:
    def fetch() -> np.ndarray:
      held.append(name)
      return x

    return tree.Stored(fetch, x.shape, x.dtype)

  arrays = {k: np.float32(draw(i, 6, 5)) for i, k in enumerate('abc')}
  lazy = {k: stored(k, x) for k, x in arrays.items()}
  doubled = tree.map(jnp.multiply, lazy, jax.tree.map(lambda _: 2.0, lazy))
  said: list[Any] = []
  found = adapters.extract(doubled, rank=5, progress=lambda *x: said.append(x))
  assert said == [('a', 120, 360), ('b', 240, 360), ('c', 360, 360)]
  assert held == ['a', 'b', 'c']
  for name, x in arrays.items():
    dense = adapters.dense(found.factors[name])
    np.testing.assert_allclose(dense, 2 * x, atol=1e-5)


def test_factors_are_a_pytree() -> None:
  x = jnp.asarray(draw(6, 4, 3), jnp.float32)
  one = adapters.extract({'w': x}, rank=2).factors['w']
  double = jax.tree.map(lambda y: y * 2, one)
  np.testing.assert_allclose(
    jax.jit(adapters.dense)(double), 8 * adapters.dense(one), rtol=1e-5
  )
  names = list(tree.named({'w': one}))
  assert names == ['w/a', 'w/b', 'w/scale']


def test_float64_is_kept_whatever_the_settings() -> None:
  x = planted(8, 6, 5, [2.0, 1.0])
  found = adapters.extract({'w': x}, rank=3)
  dense = adapters.dense(found.factors['w'])
  assert dense.dtype == np.float64
  np.testing.assert_allclose(dense, x, rtol=0, atol=1e-14)


def test_zero_and_none_leaves() -> None:
  delta = {'w': jnp.zeros((3, 3)), 'u': None, 'b': jnp.zeros(3)}
  found = adapters.extract(delta, rank=2)
  assert found == ({}, {}, {'w': 0.0, 'b': 0.0})


@pytest.mark.parametrize(
  ('delta', 'hyper', 'message'),
  [
    ((3, 3), {}, 'give rank=, energy= or both'),
    ((3, 3), {'rank': 0}, 'rank=0'),
    ((3, 3), {'rank': 1.5}, 'rank=1.5'),
    ((3, 3), {'energy': 1.5}, 'energy=1.5'),
    ((3, 3), {'rank': 1, 'otherwise': 'kep'}, "'keep'"),
    ((3, 3), {'rank': 1, 'dtype': np.int8}, 'dtype=int8'),
    ((3, 3, 3), {'rank': 1}, "extract: leaf 'w' of shape"),
  ],
)
def test_mistakes(delta: Any, hyper: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message) as found:
    adapters.extract({'w': jnp.ones(delta)}, **hyper)
  assert '\n' not in str(found.value)


def test_values_that_are_not_finite_are_named() -> None:
  x = jnp.ones((3, 3)).at[1, 1].set(jnp.nan)
  with pytest.raises(ValueError, match="leaf 'w' has values that are not"):
    adapters.extract({'w': x}, rank=1)
  with pytest.raises(ValueError, match='complex'):
    adapters.extract({'w': jnp.ones((2, 2), jnp.complex64)}, rank=1)


def test_traced_leaves_and_leaves_in_factors_are_refused() -> None:
  with pytest.raises(ValueError, match="leaf 'w' is traced"):
    jax.eval_shape(
      lambda x: adapters.extract({'w': x}, rank=1), jnp.ones((2, 2))
    )
  found = adapters.extract({'w': np.ones((2, 2), np.float32)}, rank=1).factors
  with pytest.raises(ValueError, match="leaf 'w' is in factors"):
    adapters.extract(found, rank=1)
