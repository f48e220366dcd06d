import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import models
from wsl.models import _resnet


@pytest.mark.parametrize(
  ('side', 'stride'), [(1, 1), (1, 2), (2, 3), (3, 1), (3, 2), (4, 2)]
)
@pytest.mark.parametrize('size', [(7, 7), (8, 5)])
def test_convolution_equals_lax(size, side, stride, draw_params):
  x = jax.random.normal(jax.random.key(0), (2, *size, 3), jnp.float64)
  conv = _resnet.Conv(4, side, stride)
  params = draw_params(conv, x)
  expected = jax.lax.conv_general_dilated(
    x,
    params['kernel'],
    (stride, stride),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  y = jax.jit(conv.apply)({'params': params}, x)
  np.testing.assert_allclose(
    y, expected + params['bias'][None, None, None], rtol=0, atol=1e-12
  )


def test_patches_are_in_reading_order():
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  cut = _resnet.patches(x, side=2, stride=2)
  assert cut.shape == (1, 2, 2, 2, 2, 1)
  np.testing.assert_array_equal(cut[0, 1, 0, ..., 0], [[8, 9], [12, 13]])


def test_dense_block_is_residual_only_at_constant_width(draw_params):
  model = models.ResNet(widths=(2,), dense=(5, 5))
  x = jnp.ones((1, 4, 4, 1), jnp.float64)
  params = draw_params(model, x)
  silent = jax.tree.map(jnp.zeros_like, params)
  params = {**params, 'block_2': silent['block_2']}
  kept = jax.jit(model.apply)({'params': params}, x)
  assert np.any(kept)
  params = {**params, 'block_1': silent['block_1']}
  assert not np.any(jax.jit(model.apply)({'params': params}, x))


def test_residual_block_with_zero_parameters_is_the_identity(draw_params):
  model = models.ResNet(widths=(2,), depth=1, dense=())
  plain = models.ResNet(widths=(2,), dense=())
  x = jax.random.normal(jax.random.key(1), (1, 4, 4, 1), jnp.float64)
  params = draw_params(model, x)
  silent = {
    **params,
    'block_1': jax.tree.map(jnp.zeros_like, params['block_1']),
  }
  np.testing.assert_array_equal(
    jax.jit(model.apply)({'params': silent}, x),
    jax.jit(plain.apply)({'params': {'block_0': params['block_0']}}, x),
  )
