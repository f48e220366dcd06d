"""A parameter tree is partitioned: every leaf belongs to one part."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import models, stitch


def embed(params, x):
  return x @ params['in']['kernel']


def block(params, h):
  return jnp.tanh(h @ params['dense']['kernel'])


def head(params, h):
  return h @ params['out']['kernel']


EMBED, BLOCKS, HEAD = (embed, '^in/'), (block, r'^block_(\d+)/'), (head, '^out')


def tree_of(widths=(3, 3, 3)):
  rng = np.random.default_rng(0)
  draw = lambda d, e: {'kernel': jnp.asarray(rng.normal(size=(d, e)))}
  params = {'in': draw(4, widths[0]), 'out': draw(widths[-1], 2)}
  for i, (d, e) in enumerate(itertools.pairwise(widths)):
    params[f'block_{i}'] = {'dense': draw(d, e)}
  return params


def by_hand(params, x):
  h = x @ params['in']['kernel']
  for i in range(len(params) - 2):
    h = jnp.tanh(h @ params[f'block_{i}']['dense']['kernel'])
  return h @ params['out']['kernel']


@pytest.mark.parametrize('widths', [(3, 3, 3), (3, 2, 5)])
def test_equal_blocks_are_stacked_and_unequal_blocks_are_a_tuple(widths):
  params = tree_of(widths)
  model = stitch.cut(params, embed=EMBED, blocks=BLOCKS, head=HEAD)
  assert model.depth == 2
  assert model.stacked == (len(set(widths)) == 1)
  x = jnp.ones((2, 4))
  np.testing.assert_allclose(
    stitch.apply(model, x), by_hand(params, x), rtol=1e-12
  )


def test_one_rule_per_block_keeps_the_names():
  params = tree_of((3, 2, 5))
  rules = [
    (lambda p, h: block(p['block_0'], h), 'block_0'),
    (lambda p, h: block(p['block_1'], h), 'block_1'),
  ]
  model = stitch.cut(params, embed=EMBED, blocks=rules, head=HEAD)
  x = jnp.ones((2, 4))
  np.testing.assert_allclose(
    stitch.apply(model, x), by_hand(params, x), rtol=1e-12
  )
  assert list(model.params['blocks'][1]) == ['block_1']


def test_blocks_are_ordered_by_number():
  params = {f'b{i}/': jnp.full(1, float(i)) for i in (10, 2, 0, 1)}
  params |= {f'b{i}/': jnp.full(1, float(i)) for i in range(3, 10)}
  named = {name[:-1]: {'w': leaf} for name, leaf in params.items()}
  model = stitch.cut(
    named,
    embed=(embed, '$^'),
    blocks=(lambda p, h: h * p['w'], r'b(\d+)/'),
    head=(head, '$^'),
  )
  np.testing.assert_array_equal(
    model.params['blocks']['w'][:, 0], np.arange(11.0)
  )
  assert model.params['embed'] == {}


def test_a_manual_cut_of_a_flax_model_equals_its_segments():
  module = models.ViT(outputs=3, patch=4, width=8, depth=2, heads=2)
  x = jnp.ones((2, 8, 8, 1))
  like = jax.eval_shape(module.init, jax.random.key(0), x)['params']
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape)), like)
  parts = models.segments(module, params)
  model = stitch.cut(
    params,
    embed=(parts.embed, '^(embedding|position)'),
    blocks=(parts.block, r'^block_(\d+)/'),
    head=(parts.head, '^(norm|output)/'),
  )
  chex.assert_trees_all_equal(model.params, parts.params)
  assert jax.tree.structure(model) == jax.tree.structure(
    stitch.Segmented(*parts)
  )


def test_errors_name_the_leaf_or_rule():
  params = tree_of()
  with pytest.raises(
    ValueError, match=r"leaf 'out/kernel' matches none of \['embed', 'blocks'"
  ):
    stitch.cut(params, embed=EMBED, blocks=BLOCKS, head=(head, '^exit'))
  with pytest.raises(
    ValueError, match=r"'in/kernel' matches \['embed', 'head'\]"
  ):
    stitch.cut(params, embed=EMBED, blocks=BLOCKS, head=(head, '^(out|in)'))
  del params['block_0']
  with pytest.raises(ValueError, match=r'no leaf of block 0, of blocks 0\.\.1'):
    stitch.cut(params, embed=EMBED, blocks=BLOCKS, head=HEAD)
  with pytest.raises(ValueError, match='has 0 groups: expected one'):
    stitch.cut(params, embed=EMBED, blocks=(block, '^block'), head=HEAD)
  with pytest.raises(ValueError, match="'block' is not a block number"):
    stitch.cut(params, embed=EMBED, blocks=(block, '^([a-z]+)_'), head=HEAD)
  rules = [(block, '^block_1'), (block, '^block_2')]
  with pytest.raises(ValueError, match=r'blocks\[1\]: no leaf matches'):
    stitch.cut(params, embed=EMBED, blocks=rules, head=HEAD)
  with pytest.raises(ValueError, match='no regular expression'):
    stitch.cut(params, embed=(embed, '('), blocks=BLOCKS, head=HEAD)
