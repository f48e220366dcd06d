"""Batch normalisation: batch moments in training, else running ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import models
from wsl.models import _layers

X = np.random.RandomState(0).randn(5, 3, 3, 2) * [2.0, 0.5] + [1.0, -3.0]


def variables():
  found = _layers.BatchNorm().init(jax.random.key(0), X)
  draw = np.random.RandomState(1)
  return jax.tree.map(lambda x: jnp.asarray(draw.rand(*x.shape) + 0.5), found)


def by_definition(x, v, mean, var):
  v, mean, var = jax.tree.map(np.asarray, (v, mean, var))
  normal = (x - mean) / np.sqrt(var + _layers.EPSILON)
  return normal * v['params']['scale'] + v['params']['bias']


def test_running_moments_are_used_outside_training():
  v = variables()
  stats = v['batch_stats']
  expected = by_definition(X, v, stats['mean'], stats['var'])
  found = jax.jit(_layers.BatchNorm().apply)(v, X)
  np.testing.assert_allclose(found, expected, atol=1e-12)


def test_training_uses_the_batch_and_updates_the_running_moments():
  v = variables()
  mean, var = X.mean((0, 1, 2)), X.var((0, 1, 2))
  found, new = _layers.BatchNorm(momentum=0.75).apply(
    v, X, train=True, mutable=['batch_stats']
  )
  np.testing.assert_allclose(found, by_definition(X, v, mean, var), atol=1e-12)
  for name, now in (('mean', mean), ('var', var)):
    np.testing.assert_allclose(
      new['batch_stats'][name], 0.75 * v['batch_stats'][name] + 0.25 * now
    )
  still = _layers.BatchNorm().apply(v, X, train=True)
  np.testing.assert_allclose(still, found, atol=1e-12)


def test_it_starts_as_the_identity_of_unit_moments():
  v = _layers.BatchNorm().init(jax.random.key(0), X, train=True)
  np.testing.assert_array_equal(v['batch_stats']['mean'], np.zeros(2))
  np.testing.assert_array_equal(v['batch_stats']['var'], np.ones(2))
  assert v['batch_stats']['var'].dtype == 'float32'


def test_a_residual_network_with_batch_normalisation():
  model = models.ResNet(
    outputs=3, widths=(4, 6), depth=1, dense=(), pool='mean', norm='batch'
  )
  x = jax.random.normal(jax.random.key(1), (8, 6, 6, 3))
  v = model.init(jax.random.key(2), x)
  assert set(v['batch_stats']) == {f'block_{i}' for i in range(4)}
  assert set(v['batch_stats']['block_1']) == {'norm_0', 'norm_1'}
  assert set(v['params']['block_1']['norm_0']) == {'scale', 'bias'}
  whole, new = model.apply(v, x, train=True, mutable=['batch_stats'])
  assert whole.shape == (8, 3)
  assert not np.allclose(whole, model.apply(v, x))
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), v, {**v, **new})
  assert all(jax.tree.leaves(moved['batch_stats']))


def test_bad_arguments_are_named():
  x = jnp.ones((1, 4, 4, 1))
  with pytest.raises(ValueError, match="norm='bach': expected 'layer' or"):
    models.ResNet(norm='bach').init(jax.random.key(0), x)
  with pytest.raises(ValueError, match="groups=2 goes with norm='layer'"):
    models.ResNet(norm='batch', groups=2).init(jax.random.key(0), x)
