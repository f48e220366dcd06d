"""Moments against the outputs themselves, and the joint Gram across models."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import models, stats, tree, types

close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def assert_moments(found, rows, bias=''):
  """Rows are [n, *units]."""
  rows = np.asarray(rows)
  close(found.mean, rows.mean(0))
  close(found.variance, rows.var(0))
  assert found.count == len(rows)
  assert found.bias == bias


def test_literal():
  params = {'b': jnp.asarray([1.0, 0.0]), 'w': jnp.asarray([[1.0, 2.0]])}
  apply_fn = lambda p, x: jax.nn.relu(x @ p['w'] + p['b'][None])
  x = jnp.asarray([[-3.0], [1.0], [2.0], [4.0]])
  found = stats.moments(apply_fn, params, [x[:3], x[3:]])
  assert found['b'] is None
  np.testing.assert_allclose(found['w'].mean, [2.0, 2.0])
  np.testing.assert_allclose(found['w'].variance, [6.5, 26.0])
  assert found['w'].count == 4
  assert found['w'].axes == (0,)
  assert found['w'].bias == 'b'


class Net(nn.Module):
  """A convolution, a strided grouped one without bias, and dense maps."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(4, (3, 3), param_dtype=float, name='c0')(x))
    x = nn.Conv(
      6,
      (3, 2),
      strides=(2, 1),
      feature_group_count=2,
      use_bias=False,
      param_dtype=float,
      name='c1',
    )(x)
    x = nn.relu(x).reshape(x.shape[0], -1)
    return nn.Dense(3, param_dtype=float, name='out')(x)


def test_flax_convolutions_and_dense_against_captured_outputs():
  model, x = Net(), normal(0, 3, 4, 4, 2)
  params = jax.jit(model.init)(jax.random.key(0), x)
  params = tree.map_named(
    lambda n, p: p + 1 if n.endswith('bias') else p, params
  )
  found = stats.moments(model.apply, params, [x])['params']
  capture = functools.partial(model.apply, capture_intermediates=True)
  _, seen = jax.jit(capture)(params, x)
  seen = seen['intermediates']
  out = {name: seen[name]['__call__'][0] for name in ('c0', 'c1', 'out')}
  assert_moments(
    found['c0']['kernel'], out['c0'].reshape(-1, 4), 'params/c0/bias'
  )
  assert_moments(found['c1']['kernel'], out['c1'].reshape(-1, 6))
  assert_moments(found['out']['kernel'], out['out'], 'params/out/bias')
  assert found['c1']['kernel'].axes == (0, 1, 2)


def test_attention_has_units_of_heads():
  model = nn.MultiHeadDotProductAttention(2, param_dtype=float)
  x = normal(0, 3, 5, 4)
  params = jax.jit(model.init)(jax.random.key(0), x)['params']
  params = jax.tree.map(lambda p: p + 0.1, params)
  apply_fn = lambda p, x: model.apply({'params': p}, x)
  found = stats.moments(apply_fn, params, [x])
  query = np.einsum('btd,dhk->bthk', x, params['query']['kernel'])
  rows = query.reshape(15, 2, 2) + np.asarray(params['query']['bias'])[None]
  assert_moments(found['query']['kernel'], rows, 'query/bias')
  rows = apply_fn(params, x).reshape(15, 4)
  assert_moments(found['out']['kernel'], rows, 'out/bias')


def test_the_rooms_own_models_have_all_their_biases_found():
  model = models.ResNet(
    outputs=3, widths=(4,), depth=1, dense=(5,), pool='flatten'
  )
  x = jnp.ones((2, 4, 4, 1))
  params = jax.jit(model.init)(jax.random.key(0), x)['params']
  apply_fn = lambda p, x: model.apply({'params': p}, x)
  found = stats.moments(apply_fn, params, [x])
  maps = tree.named(found, is_leaf=lambda x: isinstance(x, types.Moments))
  assert {n: m.bias for n, m in maps.items()} == {
    n: n.replace('kernel', 'bias')
    for n in tree.named(params)
    if n.endswith('kernel')
  }


def test_scanned_layers_have_their_own_moments():
  params = {'w': normal(1, 3, 4, 4), 'b': normal(2, 3, 4)}
  layer = lambda h, p: (jnp.tanh(h @ p['w'] + p['b'][None]), None)
  looped = lambda p, x: jax.lax.scan(layer, x, p)[0]
  x = normal(0, 6, 4)
  found = stats.moments(looped, params, [x[:4], x[4:]])['w']
  rows, h = [], x
  for w, b in zip(params['w'], params['b']):
    rows.append(h @ w + b[None])
    h = jnp.tanh(rows[-1])
  assert_moments(found, np.stack(rows, 1), 'b')


def test_experts_and_a_transposed_weight():
  params = {'e': normal(1, 3, 4, 2), 'b': normal(2, 3, 2), 't': normal(3, 5, 6)}

  def apply_fn(p, x):
    h = jnp.einsum('bei,eio->beo', x, p['e']) + p['b'][None]
    return p['t'] @ jnp.tanh(h).reshape(-1, 6).T

  x = normal(0, 7, 3, 4)
  found = stats.moments(apply_fn, params, [x])
  h = np.einsum('bei,eio->beo', x, params['e']) + np.asarray(params['b'])
  assert_moments(found['e'], h, 'b')
  assert_moments(found['t'], apply_fn(params, x).T)
  assert found['t'].axes == (1,)


@jax.jit
def added_in_a_call(y, b):
  return y + jax.lax.stop_gradient(b)[None]


@pytest.mark.parametrize(
  'add',
  [
    lambda y, b: y + jnp.broadcast_to(b[None], y.shape),
    lambda y, b: b[None] + y,
    lambda y, b: jax.vmap(lambda row: row + b)(y),
    lambda y, b: (y.reshape(2, 3, 4) + b[None, None]).reshape(6, 4),
    lambda y, b: (y.T + b[:, None]).T,
    lambda y, b: (y.reshape(6, 2, 2) + b.reshape(1, 2, 2)).reshape(6, 4),
    added_in_a_call,
  ],
)
def test_ways_to_add_a_bias(add):
  params, x = {'w': normal(1, 3, 4), 'b': normal(2, 4)}, normal(0, 6, 3)
  apply_fn = lambda p, x: add(x @ p['w'], p['b'])
  found = stats.moments(apply_fn, params, [x])['w']
  assert_moments(found, apply_fn(params, x), 'b')


NO_BIAS = {
  'along the rows': lambda p, x: x @ p['w'] + p['b'][:, None],
  'scaled first': lambda p, x: 2.0 * (x @ p['w']) + p['b'][None],
  'two products': lambda p, x: x @ p['w'] + x @ p['v'] + p['b'][None],
  'after relu': lambda p, x: jax.nn.relu(x @ p['w']) + p['b'][None],
  'two maps': lambda p, x: (
    (x @ p['w'] + p['b'][None]) * (x @ p['v'] + p['b'][None])
  ),
  'once in two': lambda p, x: (x @ p['w'] + p['b'][None]) * (x @ p['w']),
  'negated': lambda p, x: x @ p['w'] - p['b'][None],
}


@pytest.mark.parametrize('case', NO_BIAS)
def test_other_additions_are_not_a_bias(case):
  params = {'w': normal(1, 4, 4), 'v': normal(3, 4, 4), 'b': normal(2, 4)}
  x = normal(0, 4, 4)
  found = stats.moments(NO_BIAS[case], params, [x])['w']
  assert found.bias == ''
  close(found.mean, np.asarray(x @ params['w']).mean(0))


def test_large_means_keep_their_variance_across_batches():
  x = (1000.0 + normal(0, 400, 1)).astype('float32')
  params = {'w': jnp.ones((1, 1), 'float32')}
  batches = [x[i : i + 1] for i in range(400)]
  found = stats.moments(lambda p, x: x @ p['w'], params, batches)['w']
  wide = np.asarray(x, np.float64)
  np.testing.assert_allclose(found.variance, wide.var(0), rtol=1e-4)


def test_vmap_over_models():
  params, x = {'w': normal(1, 2, 4, 4), 'b': normal(2, 2, 4)}, normal(0, 6, 4)
  apply_fn = lambda p, x: jnp.tanh(x @ p['w'] + p['b'][None])
  find = lambda p: stats.moments(apply_fn, p, [x])
  together = jax.jit(jax.vmap(find))(params)
  separate = tree.stack(
    [find({'w': w, 'b': b}) for w, b in zip(params['w'], params['b'])]
  )
  jax.tree.map(close, together, separate)
  assert isinstance(together['w'], types.Moments)


def test_moments_wants_batches():
  with pytest.raises(ValueError, match='moments: no batches given'):
    stats.moments(lambda p, x: x @ p, jnp.ones((2, 2)), [])


def test_joint_gram_of_dense_layers():
  apply_fn = lambda p, x: jnp.tanh(x @ p['w0']) @ p['w1']
  models = [{'w0': normal(s, 3, 4), 'w1': normal(s, 4, 2)} for s in (1, 2)]
  x = normal(0, 9, 3)
  found = stats.joint_gram(apply_fn, models, [(x[:5], 'label'), (x[5:], '')])
  z = np.concatenate([np.tanh(x @ p['w0']) for p in models], 1)
  close(found['w1'].matrix[0], z.T @ z / 9)
  close(found['w0'].matrix[0], np.tile(np.asarray(x.T @ x) / 9, (2, 2)))
  assert found['w1'].count == 9
  assert found['w1'].axes == (0,)


@pytest.mark.parametrize('scanned', [False, True])
def test_joint_gram_has_each_models_own_on_the_diagonal(scanned):
  def convolve(p, x):
    x = jax.lax.conv_general_dilated(
      x,
      p['k'],
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=2,
    )
    return jnp.tanh(x) @ p['o']

  def loop(p, x):
    step = lambda h, w: (jnp.tanh(h @ w), None)
    return jax.lax.scan(step, x, p['k'])[0] @ p['o']

  apply_fn = loop if scanned else convolve
  shape = (3, 4, 4) if scanned else (3, 3, 2, 6)
  x = normal(0, 5, 4) if scanned else normal(0, 2, 4, 4, 4)
  models = [
    {'k': normal(s, *shape), 'o': normal(s, shape[-1], 2)} for s in (1, 2)
  ]
  joint = stats.joint_gram(apply_fn, models, [x])
  single = [stats.gram(apply_fn, p, [x]) for p in models]
  for leaf in ('k', 'o'):
    d = single[0][leaf].matrix.shape[-1]
    matrix = joint[leaf].matrix
    assert matrix.shape[-2:] == (2 * d, 2 * d)
    close(matrix[:, :d, :d], single[0][leaf].matrix)
    close(matrix[:, d:, d:], single[1][leaf].matrix)
    close(matrix[:, d:, :d], np.swapaxes(matrix[:, :d, d:], 1, 2))
    assert joint[leaf].axes == single[0][leaf].axes
  same = stats.joint_gram(apply_fn, [models[0]] * 2, [x])
  d = single[0]['o'].matrix.shape[-1]
  close(same['o'].matrix[:, :d, d:], single[0]['o'].matrix)


def test_joint_gram_wants_models_of_one_kind():
  with pytest.raises(ValueError, match='no models given'):
    stats.joint_gram(lambda p, x: x @ p['w'], [], [jnp.ones((1, 2))])
  models = [{'w': jnp.ones((2, 2))}, {'v': jnp.ones((2, 2))}]
  with pytest.raises(ValueError, match="model 1: no leaf 'w' as in model 0"):
    stats.joint_gram(lambda p, x: x @ p['w'], models, [jnp.ones((1, 2))])
