"""The penalty on coefficients, alone and in a fit."""

import functools
from typing import Any

import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsl import scale
from wsl.scale._learn import learning_step

KEY = jax.random.key(0)
SGD = optax.sgd(0.01)
# Norms over the vectors, p = 1: 3, 4 | 1.5 | 0; p = 2: sqrt 5, 4 | 1.5 | 0.
COEFS = {
  'cells': jnp.asarray([[1.0, 4.0], [-2.0, 0.0]], jnp.float64),
  'shared': jnp.asarray(-1.5, jnp.float64),
  'zero': jnp.zeros(2, jnp.float64),
}


@pytest.mark.parametrize(
  ('p', 'wanted'), [(1, 8.5 / 4), (2, (5**0.5 + 5.5) / 4)]
)
def test_it_is_the_mean_norm_over_blocks(p: int, wanted: float) -> None:
  value = scale.shrinkage(COEFS, p=p, weight=1.0)
  assert value.shape == ()
  np.testing.assert_allclose(value, wanted, rtol=1e-15)
  half = scale.shrinkage(COEFS, p=p)
  np.testing.assert_allclose(half, 0.5 * wanted, rtol=1e-15)


@pytest.mark.parametrize('p', [1, 2])
def test_gradients_are_finite_differences(p: int) -> None:
  flat, build = flatten_util.ravel_pytree(COEFS)
  flat = flat + 0.3
  f = lambda v: scale.shrinkage(build(v), p=p, weight=0.7)
  h = 1e-6
  steps = h * np.eye(flat.size)
  wanted = [(f(flat + s) - f(flat - s)) / (2 * h) for s in steps]
  np.testing.assert_allclose(jax.grad(f)(flat), wanted, atol=1e-9)


@pytest.mark.parametrize('p', [1, 2])
def test_at_zero_the_gradient_is_zero(p: int) -> None:
  zeros = jax.tree.map(jnp.zeros_like, COEFS)
  f = functools.partial(scale.shrinkage, p=p)
  assert f(zeros) == 0
  for slope in jax.tree.leaves(jax.grad(f)(zeros)):
    assert not slope.any()


def test_half_precision_is_summed_in_float32() -> None:
  coefs = {'w': jnp.full((64, 1), 0.1, jnp.bfloat16)}
  value = scale.shrinkage(coefs, p=1, weight=1.0)
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, 64 * float(jnp.bfloat16(0.1)), rtol=1e-6)


def test_bad_arguments_are_refused() -> None:
  with pytest.raises(ValueError, match=r'shrinkage\(p=3\): expected 1 or 2'):
    scale.shrinkage(COEFS, p=3)
  with pytest.raises(ValueError, match='there are no coefficients'):
    scale.shrinkage({}, p=1)


@functools.cache
def problem() -> tuple[Any, scale.Bank, Any]:
  draw = lambda seed: {
    name: jax.random.normal(jax.random.fold_in(jax.random.key(seed), i), (3,))
    for i, name in enumerate('ab')
  }
  base = draw(0)
  bank = scale.bank(base, [draw(1), draw(2)])
  target = draw(3)
  miss = lambda p, batch, key: sum(
    jnp.sum((p[name] - target[name]) ** 2) for name in 'ab'
  )
  return base, bank, miss


def fit(stream: bool, **settings: Any) -> scale.Fit:
  base, bank, miss = problem()
  coefs = jax.tree.map(lambda x: x + 0.4, scale.init(bank, by='leaf'))
  settings = {'optimizer': SGD, 'steps': 5} | settings
  return scale.fit(
    miss, base, bank, coefs, [0.0], key=KEY, stream=stream, **settings
  )


@pytest.mark.parametrize('stream', [False, True])
@pytest.mark.parametrize('p', [1, 2])
def test_a_step_follows_the_gradient_of_loss_and_penalty(
  p: int, stream: bool
) -> None:
  base, bank, miss = problem()
  penalty = functools.partial(scale.shrinkage, p=p, weight=3.0)
  start = jax.tree.map(lambda x: x + 0.4, scale.init(bank, by='leaf'))

  def loss(c: Any) -> Any:
    c = scale.softmax(c)
    return miss(scale.compose(base, bank, c), 0.0, KEY) + penalty(c)

  found = fit(stream, steps=1, penalty=penalty, transform=scale.softmax)
  np.testing.assert_allclose(found.losses, [loss(start)], rtol=1e-12)
  wanted = jax.tree.map(lambda x, g: x - 0.01 * g, start, jax.grad(loss)(start))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12),
    found.coefs,
    wanted,
  )


def test_streamed_equals_in_memory_and_weight_shrinks() -> None:
  size = []
  for weight in (0.0, 5.0):
    penalty = functools.partial(scale.shrinkage, p=2, weight=weight)
    found = [fit(stream, steps=40, penalty=penalty) for stream in (False, True)]
    np.testing.assert_allclose(found[0].losses, found[1].losses, rtol=1e-12)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12),
      found[0].coefs,
      found[1].coefs,
    )
    size.append(scale.shrinkage(found[0].coefs, p=2))
  assert size[1] < 0.8 * size[0]
  none = fit(False, steps=40)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12),
    none.coefs,
    fit(False, steps=40, penalty=lambda c: 0.0).coefs,
  )


@pytest.mark.parametrize('stream', [False, True])
def test_a_penalty_that_is_not_a_scalar_is_refused(stream: bool) -> None:
  with pytest.raises(ValueError, match=r'penalty has shape \(2,\), expected'):
    fit(stream, penalty=lambda c: c['a'])


def test_one_penalty_compiles_once() -> None:
  penalty = functools.partial(scale.shrinkage, p=1)
  fit(False, steps=1, penalty=penalty)
  before = learning_step.step._cache_size()
  fit(False, steps=2, penalty=penalty)
  assert learning_step.step._cache_size() == before
