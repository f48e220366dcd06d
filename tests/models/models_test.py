"""Properties of every model: names, sizes, dtypes, transformations."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import models, tree

IMAGES = jnp.linspace(-1.0, 1.0, 2 * 8 * 8, dtype=jnp.float32).reshape(
  2, 8, 8, 1
)
TOKENS = jnp.arange(12, dtype=jnp.int32).reshape(2, 6)
SMALL = {
  'mlp': (models.MLP(widths=(6, 5), outputs=3), IMAGES, (2, 3)),
  'resnet': (
    models.ResNet(outputs=3, widths=(4, 6), depth=1, dense=(5,)),
    IMAGES,
    (2, 3),
  ),
  'resnet_mean': (
    models.ResNet(widths=(4, 6), dense=(6,), pool='mean', groups=2),
    IMAGES,
    (2, 6),
  ),
  'vit': (models.ViT(outputs=3, patch=4, width=8, depth=2), IMAGES, (2, 3)),
  'language': (
    models.LanguageModel(vocabulary=12, width=8, heads=2, hidden=6),
    TOKENS,
    (2, 6, 12),
  ),
}
each = pytest.mark.parametrize('name', SMALL)
pytestmark = pytest.mark.usefixtures('full_precision')


def init(name):
  model, x, _ = SMALL[name]
  return jax.eval_shape(model.init, jax.random.key(0), x)['params']


@functools.cache
def compiled(name):
  model = SMALL[name][0]
  return jax.jit(lambda params, x: model.apply({'params': params}, x))


def cast(params, dtype):
  return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


@each
def test_shape_and_dtype(name, draw_params):
  model, x, shape = SMALL[name]
  apply, params = compiled(name), draw_params(model, x, jnp.float32)
  drawn = jax.tree.leaves(init(name))
  assert {leaf.dtype.name for leaf in drawn} == {'float32'}
  y = apply(params, x)
  assert y.shape == shape
  assert y.dtype == jnp.float32
  wide = apply(cast(params, jnp.float64), x)
  assert wide.dtype == jnp.float64
  np.testing.assert_allclose(y, wide, rtol=1e-4, atol=1e-5)


@each
def test_half_precision_computes_in_float32(name, draw_params):
  model, x, _ = SMALL[name]
  apply, params = compiled(name), draw_params(model, x, jnp.float32)
  half = cast(params, jnp.bfloat16)
  y = apply(half, x)
  assert y.dtype == jnp.float32
  expected = apply(cast(half, jnp.float32), x)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@each
def test_gradients_are_finite(name, draw_params):
  model, x, _ = SMALL[name]
  apply, params = compiled(name), draw_params(model, x, jnp.float32)
  loss = lambda p: jnp.sum(jnp.square(apply(p, x)))
  for leaf_name, grad in tree.named(jax.jit(jax.grad(loss))(params)).items():
    assert np.all(np.isfinite(grad)), leaf_name
    if not leaf_name.endswith('attention/key/bias'):
      assert np.any(grad), leaf_name


@each
def test_vmap_over_params_equals_a_loop(name, draw_params):
  model, x, _ = SMALL[name]
  apply, first = compiled(name), draw_params(model, x, jnp.float32)
  runs = [first, jax.tree.map(lambda leaf: leaf + 0.1, first)]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)
  many = jax.jit(jax.vmap(apply, (0, None)))(stacked, x)
  loop = jnp.stack([apply(p, x) for p in runs])
  np.testing.assert_allclose(many, loop, rtol=1e-4, atol=1e-5)
  assert np.abs(loop[0] - loop[1]).max() > 1e-3


@each
def test_examples_are_independent(name, draw_params):
  model, x, _ = SMALL[name]
  apply, params = compiled(name), draw_params(model, x, jnp.float32)
  changed = x.at[1].set(x[0])
  np.testing.assert_allclose(
    apply(params, x)[0], apply(params, changed)[0], rtol=1e-5, atol=1e-6
  )


@each
def test_depth_is_in_the_names(name):
  names = tree.named(init(name))
  depths = {int(m[1]) for n in names if (m := re.search(r'block_(\d+)/', n))}
  assert depths == set(range(len(depths)))


@pytest.mark.parametrize(
  ('model', 'shape', 'count'),
  [
    (models.MLP(widths=(128, 128, 128), outputs=10), (8, 8), 43402),
    (models.ResNet(), (28, 28, 1), 513016),
    (models.ResNet(outputs=10), (28, 28, 1), 515586),
    (models.ResNet(depth=1, pool='mean'), (28, 28, 1), 363112),
    (models.ViT(outputs=256), (28, 28, 1), 367168),
  ],
)
def test_counts(model, shape, count):
  variables = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, *shape))
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == count


@pytest.mark.parametrize(
  ('tied', 'groups', 'count'),
  [(True, None, 117056), (False, None, 133440), (True, 2, 108864)],
)
def test_counts_of_the_language_model(tied, groups, count):
  model = models.LanguageModel(vocabulary=256, tied=tied, groups=groups)
  variables = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == count


def shapes(name):
  return {n: list(leaf.shape) for n, leaf in tree.named(init(name)).items()}


def test_leaves_of_the_mlp():
  assert shapes('mlp') == {
    'block_0/dense/bias': [6],
    'block_0/dense/kernel': [64, 6],
    'block_0/norm/bias': [6],
    'block_0/norm/scale': [6],
    'block_1/dense/bias': [5],
    'block_1/dense/kernel': [6, 5],
    'block_1/norm/bias': [5],
    'block_1/norm/scale': [5],
    'output/bias': [3],
    'output/kernel': [5, 3],
  }


def test_kernels_of_the_resnet():
  kernels = {n: s for n, s in shapes('resnet').items() if 'kernel' in n}
  assert kernels == {
    'block_0/conv/kernel': [4, 4, 1, 4],
    'block_1/conv_0/kernel': [3, 3, 4, 4],
    'block_1/conv_1/kernel': [3, 3, 4, 4],
    'block_2/conv/kernel': [3, 3, 4, 6],
    'block_3/conv_0/kernel': [3, 3, 6, 6],
    'block_3/conv_1/kernel': [3, 3, 6, 6],
    'block_4/dense/kernel': [24, 5],
    'output/kernel': [5, 3],
  }


def test_leaves_of_the_vit():
  leaves = shapes('vit')
  block = {n: s for n, s in leaves.items() if n.startswith('block_1/')}
  assert block == {
    'block_1/attention/key/bias': [8],
    'block_1/attention/key/kernel': [8, 8],
    'block_1/attention/out/bias': [8],
    'block_1/attention/out/kernel': [8, 8],
    'block_1/attention/query/bias': [8],
    'block_1/attention/query/kernel': [8, 8],
    'block_1/attention/value/bias': [8],
    'block_1/attention/value/kernel': [8, 8],
    'block_1/attention_norm/bias': [8],
    'block_1/attention_norm/scale': [8],
    'block_1/mlp/down/bias': [8],
    'block_1/mlp/down/kernel': [16, 8],
    'block_1/mlp/up/bias': [16],
    'block_1/mlp/up/kernel': [8, 16],
    'block_1/mlp_norm/bias': [8],
    'block_1/mlp_norm/scale': [8],
  }
  assert {n: s for n, s in leaves.items() if 'block' not in n} == {
    'embedding/bias': [8],
    'embedding/kernel': [16, 8],
    'norm/bias': [8],
    'norm/scale': [8],
    'output/bias': [3],
    'output/kernel': [32, 3],
    'position': [4, 8],
  }


def test_leaves_of_the_language_model():
  leaves = shapes('language')
  assert {n: s for n, s in leaves.items() if 'block_1' not in n} == {
    'block_0/attention/key/kernel': [8, 8],
    'block_0/attention/out/kernel': [8, 8],
    'block_0/attention/query/kernel': [8, 8],
    'block_0/attention/value/kernel': [8, 8],
    'block_0/attention_norm/scale': [8],
    'block_0/mlp/down/kernel': [6, 8],
    'block_0/mlp/gate/kernel': [8, 6],
    'block_0/mlp/up/kernel': [8, 6],
    'block_0/mlp_norm/scale': [8],
    'embedding/table': [12, 8],
    'norm/scale': [8],
  }


@pytest.mark.parametrize(
  ('model', 'x', 'message'),
  [
    (models.ResNet(pool='max'), IMAGES, "expected 'flatten' or 'mean'"),
    (models.ViT(outputs=3, pool='cls', patch=4), IMAGES, "pool='cls'"),
    (models.ViT(outputs=3, patch=3), IMAGES, 'patch=3 does not divide .* 8x8'),
    (models.LanguageModel(vocabulary=9), IMAGES, 'tokens are float32'),
    (models.LanguageModel(vocabulary=9, groups=3), TOKENS, 'groups=3'),
    (models.LanguageModel(vocabulary=9, heads=3), TOKENS, 'heads=3'),
    (models.ViT(outputs=3, patch=4, heads=3), IMAGES, 'heads=3'),
    (models.ResNet(groups=5), IMAGES, 'groups=5'),
  ],
)
def test_a_bad_setting_is_named(model, x, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), x)
