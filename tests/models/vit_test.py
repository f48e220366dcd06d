import jax
import jax.numpy as jnp
import numpy as np

from wsl import models
from wsl.models import _vit


def numpy_norm(p, x):
  centred = x - x.mean(-1, keepdims=True)
  variance = x.var(-1, keepdims=True)
  return centred / np.sqrt(variance + 1e-6) * p['scale'] + p['bias']


def numpy_dense(p, x):
  return x @ p['kernel'] + p['bias']


def numpy_attention(p, x, heads):
  q, k, v = (numpy_dense(p[n], x) for n in ('query', 'key', 'value'))
  size = x.shape[-1] // heads
  out = np.empty_like(x)
  for h in range(heads):
    at = slice(h * size, (h + 1) * size)
    for b in range(len(x)):
      weights = np.exp(q[b, :, at] @ k[b, :, at].T / np.sqrt(size))
      weights /= weights.sum(1, keepdims=True)
      out[b, :, at] = weights @ v[b, :, at]
  return numpy_dense(p['out'], out)


def test_block_against_numpy(draw_params):
  block = _vit.Block(heads=2, expansion=3)
  h = jax.random.normal(jax.random.key(0), (2, 5, 8), jnp.float64)
  params = draw_params(block, h)
  p, x = jax.tree.map(np.asarray, params), np.asarray(h)
  x = x + numpy_attention(p['attention'], numpy_norm(p['attention_norm'], x), 2)
  up = numpy_dense(p['mlp']['up'], numpy_norm(p['mlp_norm'], x))
  gelu = up * np.asarray(jax.scipy.stats.norm.cdf(up))
  x = x + numpy_dense(p['mlp']['down'], gelu)
  np.testing.assert_allclose(
    jax.jit(block.apply)({'params': params}, h), x, rtol=1e-11, atol=1e-11
  )


def test_tokens_are_patches_in_reading_order():
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  np.testing.assert_array_equal(
    _vit.tokenize(x, patch=2)[0],
    [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]],
  )


def test_a_mean_without_positions_loses_the_order(
  draw_params,
):
  model = models.ViT(outputs=3, patch=2, width=8, depth=1, pool='mean')
  x = jax.random.normal(jax.random.key(0), (1, 4, 4, 1), jnp.float64)
  params = draw_params(model, x)
  apply = jax.jit(lambda p, x: model.apply({'params': p}, x))
  swapped = jnp.roll(x, 2, axis=1)
  assert np.abs(apply(params, x) - apply(params, swapped)).max() > 1e-4
  params = {**params, 'position': jnp.zeros_like(params['position'])}
  np.testing.assert_allclose(
    apply(params, x), apply(params, swapped), rtol=1e-9
  )
