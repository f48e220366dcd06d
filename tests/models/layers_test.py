import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import tree
from wsl.models import _layers


def draw(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


@pytest.mark.parametrize(
  ('x', 'w', 'expected'),
  [
    ('bfloat16', 'bfloat16', 'float32'),
    ('uint8', 'float32', 'float32'),
    ('float32', 'float64', 'float64'),
    ('float64', 'bfloat16', 'float64'),
    ('int32', 'int32', 'float32'),
  ],
)
def test_widen_takes_the_widest_float(x, w, expected):
  wide = tree.widen(jnp.ones(2, x), jnp.ones(3, w))
  assert [a.dtype.name for a in wide] == [expected, expected]


def test_dense_is_the_formula():
  kernel = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
  bias = jnp.array([0.5, 0.0, -0.5])
  y = _layers.Dense(3).apply(
    {'params': {'kernel': kernel, 'bias': bias}}, jnp.array([[1.0, -1.0]])
  )
  np.testing.assert_array_equal(y, [[-2.5, -3.0, -3.5]])


def test_dense_refuses_a_kernel_of_another_shape():
  params = {'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(2)}
  with pytest.raises(Exception, match='kernel'):
    _layers.Dense(2).apply({'params': params}, jnp.ones((1, 4)))


def test_layer_norm_against_numpy():
  x, scale, bias = draw(2, 3, 5), draw(5, seed=1), draw(5, seed=2)
  y = _layers.LayerNorm().apply({'params': {'scale': scale, 'bias': bias}}, x)
  a = np.asarray(x)
  normal = (a - a.mean(-1, keepdims=True)) / np.sqrt(
    a.var(-1, keepdims=True) + 1e-6
  )
  np.testing.assert_allclose(
    y, normal * np.asarray(scale) + np.asarray(bias), rtol=1e-12, atol=1e-12
  )


def test_group_norm_against_numpy():
  x = draw(2, 3, 4, 6)
  params = {'scale': draw(6, seed=1), 'bias': draw(6, seed=2)}
  y = _layers.LayerNorm(groups=2).apply({'params': params}, x)
  expected = np.empty(x.shape)
  for b in range(2):
    for channels in (slice(0, 3), slice(3, 6)):
      part = np.asarray(x)[b, ..., channels]
      expected[b, ..., channels] = (part - part.mean()) / np.sqrt(
        part.var() + 1e-6
      )
  expected = expected * np.asarray(params['scale']) + np.asarray(params['bias'])
  np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('causal', [False, True])
def test_attend_against_loops(causal):
  q, k, v = (np.asarray(draw(2, 4, 3, 5, seed=s)) for s in range(3))
  expected = np.zeros((2, 4, 3, 5))
  for b, i, h in np.ndindex(2, 4, 3):
    last = i + 1 if causal else 4
    weights = np.exp(k[b, :last, h] @ q[b, i, h] / np.sqrt(5))
    expected[b, i, h] = weights @ v[b, :last, h] / weights.sum()
  y = _layers.attend(*map(jnp.asarray, (q, k, v)), causal=causal)
  np.testing.assert_allclose(y, expected.reshape(2, 4, 15), rtol=1e-12)
