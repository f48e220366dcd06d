"""Composition inside a scan over layers."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import scale, tree

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
def test_composing_inside_the_scan_equals_composing_before_it(by: Any) -> None:
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


def test_coefficients_that_split_layers_are_refused() -> None:
  with pytest.raises(ValueError, match='split more than its layers'):
    inside(scale.init(BANK, by='channel'))
  with pytest.raises(ValueError, match='a bank whose base differs'):
    scale.scan(block, H, BASE | {'b': BASE['b'] + 1}, BANK, 0.3)
  uneven = {'w': jnp.ones((2, 3)), 'b': jnp.ones(3)}
  bank = scale.bank(uneven, [jax.tree.map(lambda x: x + 1, uneven)])
  with pytest.raises(ValueError, match='expected one number of layers'):
    scale.scan(block, H, uneven, bank, 0.3)


@pytest.mark.parametrize('kind', ['absent', 'on demand', 'layers right'])
def test_leaves_that_are_not_stacks_are_refused(kind: str) -> None:
  base = {'b': BASE['b']}
  one = {'b': BASE['b'] + 1}
  x = np.asarray(one['b'])
  lazy = tree.Stored(lambda: x, x.shape, x.dtype)
  right = scale.LowRank(jnp.ones(1), jnp.ones((1, L, D)))
  models, message = {
    'absent': ([one, {'b': None}], "leaf 'b' is no stack [T, L, ...]: read it"),
    'on demand': ([{'b': lazy}], "leaf 'b' is no stack [T, L, ...]: read it"),
    'layers right': ([{'b': right}], "leaf 'b' has its layers in the right"),
  }[kind]
  with pytest.raises(ValueError, match=re.escape(message)) as caught:
    scale.scan(block, H, base, scale.bank(base, models), 0.3)
  assert '\n' not in str(caught.value)


def test_low_rank_stacks_are_scanned() -> None:
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
  factors = [
    {
      'w': scale.LowRank(draw(L, D, 2), draw(2, D)),
      'b': scale.LowRank(draw(L, 1), draw(1, D)),
      'index': BASE['index'],
    }
    for _ in range(T)
  ]
  low = scale.bank(BASE, factors)
  is_factors = lambda x: isinstance(x, scale.LowRank)
  add = lambda y, x: (
    x + jnp.tensordot(y.left, y.right, 1) if is_factors(y) else x
  )
  dense = scale.bank(
    BASE,
    [jax.tree.map(add, f, BASE, is_leaf=is_factors) for f in factors],
  )
  coefs = scale.init(BANK, by=('channel', 0), value=0.3)
  run = lambda bank: jax.jit(
    jax.value_and_grad(
      lambda c: jnp.sum(scale.scan(block, H, BASE, bank, c) ** 2)
    )
  )(coefs)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12),
    run(low),
    run(dense),
  )


@pytest.mark.cpu_only('it measures the memory of a compiled program')
def test_one_layer_is_in_memory_at_a_time() -> None:
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
