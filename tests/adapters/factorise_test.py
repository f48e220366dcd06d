"""Models of low rank: the least errors of weights and of outputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, stats, tree, types

STRICT = pytest.mark.skipif(
  not jax.config.jax_enable_x64, reason='compares in float64'
)
N, OUT = 10, 8
DRAW = np.random.default_rng(0).standard_normal
W = DRAW((N, OUT)) * np.linspace(0.2, 2.0, N)[:, None]
# Inputs of few directions that count: not those of W.
X = DRAW((200, N)) * np.geomspace(8.0, 0.05, N)


def run(w: Any = W, gram: Any = None, **hyper: Any) -> Any:
  grams = None if gram is None else {'w': types.Gram(jnp.asarray(gram[None]))}
  return adapters.factorise({'w': jnp.asarray(w)}, grams=grams, **hyper)


def product(found: Any) -> np.ndarray:
  factors = found.params['w']
  return (np.asarray(factors.b) @ np.asarray(factors.a)).T


@STRICT
@pytest.mark.parametrize('rank', [1, 3])
def test_outputs_have_the_least_error(rank: int) -> None:
  gram = X.T @ X / len(X)
  found = run(gram=gram, rank=rank)
  values = np.linalg.svd(X @ W, compute_uv=False)
  tail = np.sqrt(np.sum(values[rank:] ** 2) / np.sum(values**2))
  lost = np.linalg.norm(X @ (W - product(found))) / np.linalg.norm(X @ W)
  assert lost == pytest.approx(tail, rel=1e-9)
  assert found.errors['w'] == pytest.approx(tail, rel=1e-9)
  # The decomposition of W has the least error of W, and more of the outputs.
  plain = run(rank=rank)
  s = np.linalg.svd(W, compute_uv=False)
  tail = np.sqrt(np.sum(s[rank:] ** 2) / np.sum(s**2))
  assert plain.errors['w'] == pytest.approx(tail, rel=1e-9)
  other = np.linalg.norm(X @ (W - product(plain))) / np.linalg.norm(X @ W)
  assert other > 1.1 * lost
  factors = found.params['w']
  norms = [np.linalg.norm(factors.a, axis=1), np.linalg.norm(factors.b, axis=0)]
  np.testing.assert_allclose(*norms, rtol=1e-9)
  # The scale of the inputs has no influence.
  scaled = run(gram=1e-30 * gram, rank=rank)
  np.testing.assert_allclose(product(scaled), product(found), atol=1e-12)


@STRICT
def test_a_singular_gram_matrix() -> None:
  """Inputs of three directions: rank 3 is exact on them."""
  x = X[:, :3] @ DRAW((3, N))
  gram = x.T @ x / len(x)
  found = run(gram=gram, rank=3)
  assert np.linalg.norm(x @ (W - product(found))) < 1e-6 * np.linalg.norm(x @ W)
  assert found.params['w'].rank == 3
  two = run(gram=gram, rank=2)
  values = np.linalg.svd(x @ W, compute_uv=False)
  lost = np.linalg.norm(x @ (W - product(two)))
  assert lost == pytest.approx(values[2], rel=1e-6)


def test_ranks_by_energy_and_ratio() -> None:
  u, v = (np.linalg.qr(DRAW((n, 4)))[0] for n in (N, OUT))
  w = np.float32(u * np.sqrt([60.0, 25.0, 10.0, 5.0]) @ v.T)
  # 0.7 * 80 / 18 = 3.1; the smaller rank holds.
  of = lambda energy: run(w, ratio=0.7, energy=energy).params['w'].rank
  ranks = {energy: of(energy) for energy in (0.5, 0.8, 0.94, 1.0)}
  assert ranks == {0.5: 1, 0.8: 2, 0.94: 3, 1.0: 3}
  found = run(w, ratio=0.7)
  assert found.sizes == (80, 54)
  assert found.errors['w'] == pytest.approx(np.sqrt(0.05), rel=1e-4)
  # Four ranks have 72 parameters, five 90, more than the matrix.
  assert run(np.float32(W), rank=4).sizes == (80, 72)
  whole = run(np.float32(W), rank=5)
  assert (whole.sizes, whole.errors['w']) == ((80, 80), 0.0)
  assert isinstance(whole.params['w'], jax.Array)


def test_a_small_direction_is_kept_without_a_limit_of_energy() -> None:
  # Its square is below the rounding of the sum of squares in float32.
  u, v = (np.linalg.qr(DRAW((n, 2)))[0] for n in (N, OUT))
  w = np.float32(u * [1.0, 1e-4] @ v.T)
  found = run(w, rank=2)
  assert found.params['w'].rank == 2
  assert found.errors['w'] < 1e-6


def test_a_model_with_the_grams_of_its_inputs() -> None:
  draw = lambda *shape: jnp.asarray(DRAW(shape), jnp.float32)
  params = {'a': draw(N, 12), 'b': draw(12), 'c': draw(12, OUT)}

  def apply_fn(p: Any, x: Any) -> Any:
    return jnp.tanh(x @ p['a'] + p['b'][None]) @ p['c']

  x = jnp.asarray(X, jnp.float32)
  grams = stats.gram(apply_fn, params, [x])
  found = adapters.factorise(params, ratio=0.6, grams=grams)
  assert {k: x.rank for k, x in found.params.items() if k != 'b'} == {
    'a': 3,
    'c': 2,
  }
  assert found.params['b'] is params['b']
  error = lambda f: jnp.linalg.norm(
    apply_fn(adapters.dense(f.params), x) - apply_fn(params, x)
  )
  plain = adapters.factorise(params, ratio=0.6)
  assert error(found) < 0.9 * error(plain)
  # Leaves that are not chosen stay; leaves on demand are read.
  lazy = jax.tree.map(tree.defer, params)
  some = adapters.factorise(lazy, ratio=0.6, leaves='^a$', grams=grams)
  np.testing.assert_allclose(some.params['a'].a, found.params['a'].a, atol=1e-5)
  assert tree.on_demand(some.params['c'])


def test_blocks_have_ranks_each() -> None:
  w = np.float32(DRAW((3, N, OUT)))
  w[1] = np.outer(w[1, :, 0], w[1, 0])
  views = {'w': tree.Matrix(batch=(0,), rows=(1,), columns=(2,))}
  found = adapters.factorise({'w': jnp.asarray(w)}, rank=2, matrices=views)
  factors = found.params['w']
  assert (factors.a.shape, factors.b.shape) == ((3, 2, N), (3, OUT, 2))
  dense = np.asarray(adapters.dense(found.params)['w'])
  for one, own in zip(dense, w):
    s = np.linalg.svd(own, compute_uv=False)
    lost = np.linalg.norm(one - own)
    assert lost == pytest.approx(np.linalg.norm(s[2:]), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
  ('hyper', 'message'),
  [
    ({}, 'give rank=, energy= or ratio='),
    ({'rank': 0}, 'rank=0'),
    ({'ratio': 1.5}, 'ratio=1.5'),
    ({'rank': 1, 'dtype': np.int8}, 'dtype=int8'),
    ({'rank': 1, 'w': np.zeros((N, OUT), np.int32)}, 'no leaf is a matrix'),
    ({'energy': 0}, 'energy=0'),
    ({'rank': 1, 'gram': np.ones((8, 8))}, "leaf 'w' has 1 matrices of 10"),
    ({'rank': 1, 'leaves': 'v'}, 'factorise'),
    ({'rank': 1, 'w': np.full((N, OUT), np.nan, np.float32)}, 'not finite'),
  ],
)
def test_mistakes(hyper: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message) as found:
    run(**hyper)
  assert len(str(found.value)) < 200
