import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import models
from wsl.models import _language


def draw(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def test_rms_norm_against_numpy():
  x, scale = draw(2, 3, 5), draw(5, seed=1)
  y = _language.RMSNorm().apply({'params': {'scale': scale}}, x)
  a, scale = np.asarray(x), np.asarray(scale)
  expected = a * scale / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_swiglu_against_numpy():
  x = draw(2, 4)
  sizes = {'gate': (4, 6), 'up': (4, 6), 'down': (6, 4)}
  kernels = {n: draw(*s, seed=i) for i, (n, s) in enumerate(sizes.items())}
  params = {name: {'kernel': kernel} for name, kernel in kernels.items()}
  y = models.SwiGLU(6).apply({'params': params}, x)
  gate = np.asarray(x @ kernels['gate'])
  hidden = gate / (1 + np.exp(-gate)) * (x @ kernels['up'])
  np.testing.assert_allclose(y, hidden @ kernels['down'], rtol=1e-12)


def test_rotation_of_one_pair():
  x = jnp.broadcast_to(jnp.array([1.0, 0.0]), (1, 3, 1, 2))
  angle = np.arange(3)
  np.testing.assert_allclose(
    _language.rotate(x)[0, :, 0],
    np.stack([np.cos(angle), np.sin(angle)], 1),
    atol=1e-15,
  )


def test_rotation_frequencies():
  x = jnp.zeros((1, 2, 1, 4)).at[..., :2].set(1.0)
  y = _language.rotate(x, wavelength=100.0)[0, 1, 0]
  expected = [np.cos(1), np.cos(0.1), np.sin(1), np.sin(0.1)]
  np.testing.assert_allclose(y, expected, rtol=1e-14)


@pytest.mark.parametrize('shift', [1, 7, 1000])
def test_rotated_products_depend_on_the_distance_only(shift):
  query, key = draw(1, 6, 2, 8), draw(1, 6, 2, 8, seed=1)

  def scores(start):
    q, k = (_language.rotate(x, start=start) for x in (query, key))
    return jnp.einsum('bqhd,bkhd->bhqk', q, k)

  np.testing.assert_allclose(scores(0), scores(shift), atol=1e-11)
  unequal = jnp.einsum(
    'bqhd,bkhd->bhqk',
    _language.rotate(query),
    _language.rotate(key, start=shift),
  )
  assert np.abs(scores(0) - unequal).max() > 1e-2


def small(draw_params, groups=None, tied=True):
  model = models.LanguageModel(
    vocabulary=11, width=16, heads=4, groups=groups, hidden=8, tied=tied
  )
  tokens = jnp.array([[3, 1, 4, 1, 5, 9, 2]], jnp.int32)
  return model, draw_params(model, tokens), tokens


@pytest.mark.parametrize('groups', [None, 2])
def test_a_token_does_not_affect_earlier_outputs(groups, draw_params):
  model, params, tokens = small(draw_params, groups)
  apply = jax.jit(model.apply)
  before = apply({'params': params}, tokens)
  for at in (0, 3, 6):
    after = apply({'params': params}, tokens.at[0, at].set(7))
    np.testing.assert_array_equal(before[:, :at], after[:, :at])
    assert np.all(np.abs(before - after)[:, at:].max(-1) > 1e-6)


@pytest.mark.parametrize('groups', [1, 2])
def test_grouped_heads_equal_repeated_heads(groups, draw_params):
  grouped, params, tokens = small(draw_params, groups)
  full, _, _ = small(draw_params)

  def repeat(path, leaf):
    name = jax.tree_util.keystr(path)
    if 'key' not in name.replace('kernel', '') and 'value' not in name:
      return leaf
    heads = leaf.reshape(16, groups, 4)
    return jnp.repeat(heads, 4 // groups, axis=1).reshape(16, 16)

  repeated = jax.tree_util.tree_map_with_path(repeat, params)
  np.testing.assert_allclose(
    jax.jit(grouped.apply)({'params': params}, tokens),
    jax.jit(full.apply)({'params': repeated}, tokens),
    rtol=1e-12,
    atol=1e-14,
  )


def test_untied_with_the_table_transposed_equals_tied(draw_params):
  tied, params, tokens = small(draw_params)
  untied, other, _ = small(draw_params, tied=False)
  assert other['output']['kernel'].shape == (16, 11)
  reading = {**params, 'output': {'kernel': params['embedding']['table'].T}}
  np.testing.assert_allclose(
    jax.jit(tied.apply)({'params': params}, tokens),
    jax.jit(untied.apply)({'params': reading}, tokens),
    rtol=1e-12,
  )
