"""Composing inside a scan over layers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import scale

L, T, D = 3, 2, 4


def layers(seed: int) -> Any:
  a, b = jax.random.split(jax.random.key(seed))
  return {
    'w': jax.random.normal(a, (L, D, D), jnp.float64) / 2,
    'b': jax.random.normal(b, (L, D), jnp.float64),
    'index': jnp.arange(L),
  }


def block(p: Any, h: Any) -> Any:
  return jnp.tanh(h @ p['w'] + p['b']) + p['index'].astype(h.dtype)


BASE = layers(0)
BANK = scale.bank(BASE, [layers(t) | {'index': BASE['index']} for t in (1, 2)])
H = jnp.ones(D, jnp.float64)


def outside(coefs: Any) -> Any:
  params = scale.compose(BASE, BANK, coefs)
  run = lambda h, p: (block(p, h), None)
  return jax.lax.scan(run, H, params)[0]


def inside(coefs: Any) -> Any:
  return scale.scan(block, H, BASE, BANK, coefs)


@pytest.mark.parametrize('by', ['all', 'task', 'leaf', ('channel', 0)])
def test_inside_is_outside(by: Any) -> None:
  coefs = jax.tree.map(
    lambda x: x + 0.1 * jnp.arange(x.size, dtype=x.dtype).reshape(x.shape),
    scale.init(BANK, by=by, value=0.3),
  )
  np.testing.assert_allclose(inside(coefs), outside(coefs), atol=1e-12)
  grads = [
    jax.jit(jax.grad(lambda c, f=f: jnp.sum(f(c) ** 2)))(coefs)
    for f in (inside, outside)
  ]
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), *grads
  )


def test_what_cannot_be_scanned_is_refused() -> None:
  with pytest.raises(ValueError, match='split more than its layers'):
    inside(scale.init(BANK, by='channel'))
  with pytest.raises(ValueError, match='a bank whose base differs'):
    scale.scan(block, H, BASE | {'b': BASE['b'] + 1}, BANK, 0.3)
  uneven = {'w': jnp.ones((2, 3)), 'b': jnp.ones(3)}
  bank = scale.bank(uneven, [jax.tree.map(lambda x: x + 1, uneven)])
  with pytest.raises(ValueError, match='expected one number of layers'):
    scale.scan(block, H, uneven, bank, 0.3)
  low = scale.LowRank(jnp.ones((L, 1)), jnp.ones((1, D)))
  bank = scale.bank({'b': BASE['b']}, [{'b': low}])
  with pytest.raises(ValueError, match="leaf 'b' is no dense stack"):
    scale.scan(block, H, {'b': BASE['b']}, bank, 0.3)


def test_one_layer_is_alive_at_a_time() -> None:
  n, d = 16, 64
  base = {'w': jnp.ones((n, d, d), jnp.float32)}
  bank = scale.bank(base, [{'w': base['w'] + 1}] * 4, dtype=jnp.bfloat16)
  coefs = scale.init(bank, by=('channel', 0))
  h = jnp.ones((1, d), jnp.float32)
  step = lambda p, h: jnp.tanh(h @ p['w'])

  def plain(base: Any, bank: Any, coefs: Any) -> Any:
    params = scale.compose(base, bank, coefs)
    return jax.lax.scan(lambda h, p: (step(p, h), None), h, params)[0].sum()

  def scanned(base: Any, bank: Any, coefs: Any) -> Any:
    return scale.scan(step, h, base, bank, coefs).sum()

  def temporaries(fn: Any) -> float:
    program = jax.jit(jax.grad(fn, 2)).lower(base, bank, coefs).compile()
    size = program.memory_analysis().temp_size_in_bytes
    return size / base['w'].nbytes

  assert temporaries(plain) > 1.9
  assert temporaries(scanned) < 0.5
