"""A segmented network runs its parts in order, with stacked blocks or not."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 3)))
W = jnp.asarray(RNG.normal(size=(4, 3, 3)))


def same(params, h):
  return h


def square(params, h):
  return jnp.tanh(h @ params['w'])


def scaled(params, h):
  return h * params


def stacked():
  params = {'embed': jnp.asarray(2.0), 'blocks': {'w': W}, 'head': {}}
  return stitch.Segmented(params, scaled, square, same)


def in_a_tuple():
  blocks = tuple({'w': w} for w in W)
  params = {'embed': jnp.asarray(2.0), 'blocks': blocks, 'head': {}}
  return stitch.Segmented(params, scaled, (square,) * 4, same)


def by_hand():
  values = [2 * np.asarray(X)]
  for w in np.asarray(W):
    values.append(np.tanh(values[-1] @ w))
  return values


@pytest.mark.parametrize('make', [stacked, in_a_tuple])
def test_features_are_the_values_at_all_positions(make):
  model, expected = make(), by_hand()
  found = stitch.features(model, X)
  assert (model.depth, len(found)) == (4, 5)
  chex.assert_trees_all_close(found, tuple(expected), rtol=1e-12)
  np.testing.assert_allclose(stitch.apply(model, X), expected[-1], rtol=1e-12)
  for start in range(5):
    for stop in range(start, 5):
      h = stitch.advance(model, found[start], start, stop)
      np.testing.assert_allclose(h, expected[stop], rtol=1e-12)


def test_the_leaves_are_the_parameters():
  model = stacked()
  assert len(jax.tree.leaves(model)) == 2
  assert model.stacked
  assert not in_a_tuple().stacked
  twice = jax.tree.map(lambda x: 2 * x, model)
  np.testing.assert_allclose(twice.params['blocks']['w'], 2 * W)


def test_stacked_blocks_scan_in_their_output_dtype():
  params = {**stacked().params, 'embed': jnp.asarray(2.0, jnp.float32)}

  def widening(params, h):
    return jnp.tanh(jnp.asarray(h, jnp.float64) @ params['w'])

  model = stitch.Segmented(params, scaled, widening, same)
  x = jnp.asarray(X, jnp.float32)
  assert stitch.apply(model, x).dtype == jnp.float64
  assert stitch.features(model, x)[0].dtype == jnp.float64


def test_a_network_without_blocks():
  params = {'embed': jnp.asarray(2.0), 'blocks': (), 'head': {}}
  model = stitch.Segmented(params, scaled, (), same)
  np.testing.assert_allclose(stitch.apply(model, X), 2 * X)
  assert len(stitch.features(model, X)) == 1


def test_errors_name_the_bad_input():
  model = stacked()
  for bounds in ((2, 1), (-1, 2), (0, 5)):
    with pytest.raises(ValueError, match='0 <= start <= stop <= 4'):
      stitch.advance(model, X, *bounds)
  params = {**in_a_tuple().params, 'blocks': in_a_tuple().params['blocks'][1:]}
  short = stitch.Segmented(params, scaled, (square,) * 4, same)
  with pytest.raises(ValueError, match='3 trees for 4 block functions'):
    stitch.apply(short, X)
  uneven = {**model.params, 'blocks': {'w': W, 'b': W[:2]}}
  with pytest.raises(ValueError, match='is not stacked'):
    stitch.apply(stitch.Segmented(uneven, scaled, square, same), X)

  def halve(params, h):
    return h[:, :1]

  with pytest.raises(ValueError, match=r'maps \(2, 3\) to \(2, 1\)'):
    stitch.apply(stitch.Segmented(model.params, scaled, halve, same), X)
