"""The CIFAR residual network against numpy and its pretrained weights."""

import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import data, models
from wsl.models import _cifar_resnet

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PUBLISHED = {20: 91.7, 32: 92.6, 44: 93.1, 56: 93.4}


def convolve(x, kernel, stride):
  """Adds up products, position by position; ``[h, w, in]``, torch's kernel."""
  height, width, _ = x.shape
  padded = np.zeros((height + 2, width + 2, x.shape[-1]))
  padded[1:-1, 1:-1] = x
  rows, columns = range(0, height, stride), range(0, width, stride)
  y = np.zeros((len(rows), len(columns), len(kernel)))
  for a, i in enumerate(rows):
    for b, j in enumerate(columns):
      cut = padded[i : i + 3, j : j + 3]
      y[a, b] = [np.sum(cut * k.transpose(1, 2, 0)) for k in kernel]
  return y


def normalise(state, name, x):
  mean, var, scale, bias = (
    state[f'{name}.{part}']
    for part in ('running_mean', 'running_var', 'weight', 'bias')
  )
  return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def by_definition(state, image, count):
  """One image ``[h, w, c]`` through the network, in torch's names."""
  relu = lambda x: np.maximum(x, 0)
  h = relu(normalise(state, 'bn1', convolve(image, state['conv1.weight'], 1)))
  for stage in (1, 2, 3):
    for place in range(count):
      block = f'layer{stage}.{place}'
      stride = 2 if stage > 1 and place == 0 else 1
      y = convolve(h, state[f'{block}.conv1.weight'], stride)
      y = relu(normalise(state, f'{block}.bn1', y))
      y = convolve(y, state[f'{block}.conv2.weight'], 1)
      y = normalise(state, f'{block}.bn2', y)
      new = y.shape[-1] - h.shape[-1]
      short = np.zeros_like(y)
      short[..., new // 2 : new // 2 + h.shape[-1]] = h[::stride, ::stride]
      h = relu(y + short)
  features = h.mean((0, 1))
  return state['linear.weight'] @ features + state['linear.bias']


@pytest.fixture(scope='module')
def drawn():
  """A small network with drawn variables, moments too, and its state."""
  model = models.CifarResNet(depth=8, outputs=3, widths=(2, 4, 6))
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), jnp.ones((1, 8, 8, 3), jnp.float32)
  )
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(rng.uniform(0.1, 1.0, x.shape) - 0.3)
  variables = jax.tree.map(draw, shapes)
  moments = variables['batch_stats']
  variables['batch_stats'] = jax.tree.map(lambda x: x + 0.5, moments)
  return model, variables, models.cifar_resnet_to_torch(variables)


def test_the_network_equals_numpy(drawn):
  model, variables, state = drawn
  images = np.random.default_rng(1).normal(size=(2, 8, 6, 3))
  expected = [by_definition(state, image, 1) for image in images]
  found = jax.jit(model.apply)(variables, images)
  np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_a_convolution_by_hand():
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  kernel = jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1.0).at[1, 1].set(10.0)
  layer = _cifar_resnet.Convolution(1, 2)
  found = layer.apply({'params': {'kernel': kernel}}, x)
  # Ten times every second pixel, plus its neighbour up and left.
  np.testing.assert_array_equal(found[0, ..., 0], [[0, 20], [80, 105]])


def test_a_shortcut_by_hand():
  x = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
  found = _cifar_resnet.shortcut(x, features=4, stride=2)
  assert found.shape == (1, 2, 2, 4)
  np.testing.assert_array_equal(found[0, ..., 1], [[1, 3], [7, 9]])
  np.testing.assert_array_equal(found[..., [0, 2, 3]], 0)
  with pytest.raises(ValueError, match='cannot narrow 1 channels to 0'):
    _cifar_resnet.shortcut(x, features=0, stride=1)


def test_training_updates_the_moments_of_a_block():
  block = _cifar_resnet.Block(4, 2)
  x = jax.random.normal(jax.random.key(0), (4, 4, 4, 2))
  variables = jax.jit(block.init)(jax.random.key(1), x)
  train = functools.partial(block.apply, train=True, mutable=['batch_stats'])
  _, new = jax.jit(train)(variables, x)
  assert set(new['batch_stats']) == {'norm_0', 'norm_1'}
  for name in ('norm_0', 'norm_1'):
    moments = new['batch_stats'][name]
    assert np.all(moments['mean'] != 0)
    assert np.all(moments['var'] != 1)


@pytest.mark.parametrize('depth', [2, 18, 21])
def test_unknown_depths_raise(depth):
  with pytest.raises(ValueError, match=f'depth={depth}: expected 6 n . 2'):
    _cifar_resnet.plan(depth, (2, 2, 2))


def test_sizes_are_the_published():
  sizes = {}
  for depth in PUBLISHED:
    model = models.CifarResNet(depth=depth)
    image = jnp.ones((1, 32, 32, 3), jnp.float32)
    found = jax.eval_shape(model.init, jax.random.key(0), image)
    leaves = jax.tree.leaves(found['params'])
    sizes[depth] = sum(leaf.size for leaf in leaves)
  # He et al., table 6: 0.27, 0.46, 0.66, 0.85 million.
  assert sizes == {20: 269722, 32: 464154, 44: 658586, 56: 853018}


def test_torch_names_and_back_bit_by_bit(drawn):
  _, variables, state = drawn
  assert len(state) == 5 + 3 * 10 + 2
  assert state['conv1.weight'].shape == (2, 3, 3, 3)
  assert state['layer2.0.conv1.weight'].shape == (4, 2, 3, 3)
  assert state['linear.weight'].shape == (3, 6)
  np.testing.assert_array_equal(
    state['layer3.0.bn2.running_var'],
    variables['batch_stats']['block_2']['norm_1']['var'],
  )
  single = {k: v.astype(np.float32) for k, v in state.items()}
  for version in (state, single):
    found = models.cifar_resnet_from_torch(version)
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    back = models.cifar_resnet_to_torch(found)
    assert set(back) == set(version)
    for name, value in version.items():
      assert back[name].dtype == value.dtype
      np.testing.assert_array_equal(back[name], value)


def test_states_that_do_not_fit_are_named(drawn):
  _, variables, state = drawn

  def without(*names):
    return {k: v for k, v in state.items() if k not in names}

  read = models.cifar_resnet_from_torch
  name = 'layer2.0.bn1.running_var'
  with pytest.raises(ValueError, match=f"has no '{name}'.*is it whole"):
    read(without(name))
  with pytest.raises(ValueError, match=r"has no 'conv1\.weight'"):
    read({})
  with pytest.raises(
    ValueError, match=r"'bn1\.num_batches_tracked'.*take it out"
  ):
    read({**state, 'bn1.num_batches_tracked': np.zeros((), np.int64)})
  with pytest.raises(ValueError, match=r"nothing for 'layer3\.1\.conv1\."):
    read({**state, 'layer3.1.conv1.weight': state['layer3.0.conv2.weight']})
  with pytest.raises(ValueError, match=r"'bn1.bias' of the state is \[5\]"):
    read({**state, 'bn1.bias': np.zeros(5)})
  params = {**variables['params'], 'heads': {'kernel': np.zeros((6, 2))}}
  with pytest.raises(ValueError, match="in PyTorch for 'params/heads/kernel'"):
    models.cifar_resnet_to_torch({**variables, 'params': params})


def folder():
  """Returns the user's data folder, or skips the test."""
  place = os.environ.get('WSL_DATA')
  if place is None:
    pytest.skip('WSL_DATA does not name a data folder')
  return pathlib.Path(place)


@pytest.mark.parametrize('depth', PUBLISHED)
def test_pretrained_networks_reach_the_published_accuracy(depth):
  weights = folder() / 'weights' / f'cifar_resnet{depth}.npz'
  images = folder() / 'cifar10_rgb.npz'
  for file in (weights, images):
    if not file.exists():
      pytest.skip(f'no {file.name} in the data folder')
  with np.load(weights) as stored:
    variables = models.cifar_resnet_from_torch(dict(stored))
  x, y = data.folder(images)['cifar10_rgb'].test
  apply_fn = jax.jit(models.CifarResNet(depth=depth).apply)
  right = []
  for i in range(0, len(x), 250):
    batch = (x[i : i + 250] / 255 - np.array(MEAN)) / np.array(STD)
    logits = apply_fn(variables, batch.astype(np.float32))
    right += [np.asarray(logits).argmax(-1) == y[i : i + 250]]
  accuracy = 100 * np.mean(np.concatenate(right))
  assert 91 <= accuracy <= 94
  assert abs(accuracy - PUBLISHED[depth]) <= 1.5
