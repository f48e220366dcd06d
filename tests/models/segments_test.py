"""The composition of a model's segments equals the model."""

import chex
import flax
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsl import models, stitch

IMAGE = (2, 8, 8, 1)
# name: (module, shape of the inputs, depth, whether the blocks are stacked)
CASES = {
  'mlp': (models.MLP(widths=(6, 5), outputs=3), IMAGE, 2, False),
  'square mlp': (models.MLP(widths=(6, 6), outputs=3), (2, 6), 2, True),
  'bare mlp': (models.MLP(widths=(), outputs=3, norm=False), IMAGE, 0, False),
  'resnet': (
    models.ResNet(outputs=3, widths=(4, 6), depth=1, stem=3, dense=(7, 7)),
    IMAGE,
    6,
    False,
  ),
  'pooled': (
    models.ResNet(widths=(4,), depth=1, dense=(5,), pool='mean', groups=2),
    IMAGE,
    3,
    False,
  ),
  'no dense': (
    models.ResNet(outputs=3, widths=(4, 4), stem=3, dense=()),
    (2, 8, 8, 4),
    2,
    False,
  ),
  'batch norm': (
    models.ResNet(
      outputs=3, widths=(4,), depth=1, stem=3, dense=(5,), norm='batch'
    ),
    IMAGE,
    3,
    False,
  ),
  'cifar': (
    models.CifarResNet(depth=8, outputs=3, widths=(2, 3, 4)),
    (2, 8, 8, 3),
    3,
    False,
  ),
  'vit': (models.ViT(outputs=3, patch=4, width=8, heads=2), IMAGE, 3, True),
  'mean vit': (
    models.ViT(outputs=3, patch=4, width=8, depth=1, heads=2, pool='mean'),
    IMAGE,
    1,
    True,
  ),
  'tied': (
    models.LanguageModel(vocabulary=7, width=8, heads=2, groups=1, hidden=6),
    (2, 5),
    2,
    True,
  ),
  'untied': (
    models.LanguageModel(
      vocabulary=7, width=8, depth=3, heads=2, hidden=6, tied=False
    ),
    (2, 5),
    3,
    True,
  ),
}


def make(name: str) -> tuple[nn.Module, dict, jax.Array]:
  """Returns a module, its variables in float64 (no two alike), and inputs."""
  module, shape, *_ = CASES[name]
  rng = np.random.default_rng(0)
  if isinstance(module, models.LanguageModel):
    inputs = jnp.asarray(rng.integers(0, 7, shape))
  else:
    inputs = jnp.asarray(rng.normal(size=shape))
  like = jax.eval_shape(module.init, jax.random.key(0), inputs)
  draw = lambda x: jnp.asarray(rng.uniform(0.2, 1.0, x.shape))
  return module, flax.core.unfreeze(jax.tree.map(draw, like)), inputs


@pytest.mark.parametrize('name', CASES)
def test_the_segments_equal_the_model(name: str) -> None:
  module, variables, inputs = make(name)

  @jax.jit
  def run(variables: dict, inputs: jax.Array) -> tuple:
    view = stitch.Segmented(*models.segments(module, variables))
    assert (view.depth, view.stacked) == CASES[name][2:]
    values = stitch.features(view, inputs)
    assert len(values) == view.depth + 1
    last = view.head(view.params['head'], values[-1])
    expected = module.apply(variables, inputs)
    return expected, stitch.apply(view, inputs), last

  expected, whole, last = run(variables, inputs)
  assert expected.dtype == jnp.float64
  chex.assert_trees_all_close(whole, expected, rtol=1e-10, atol=1e-10)
  chex.assert_trees_all_close(last, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('name', ['mlp', 'tied'])
def test_plain_parameters_give_plain_parts(name: str) -> None:
  module, variables, inputs = make(name)
  plain = models.segments(module, variables['params'])
  both = models.segments(module, variables)
  chex.assert_trees_all_equal(
    plain.params['embed'], both.params['embed']['params']
  )
  view = stitch.Segmented(*plain)
  chex.assert_trees_all_close(
    jax.jit(stitch.apply)(view, inputs),
    jax.jit(module.apply)(variables, inputs),
    rtol=1e-10,
  )


def test_functions_are_equal_by_value_so_that_views_share_a_program() -> None:
  _, variables, inputs = make('vit')
  traced = []

  @jax.jit
  def run(view: stitch.Segmented, x: jax.Array) -> jax.Array:
    traced.append(1)
    return stitch.apply(view, x)

  for scale in (1.0, 2.0):
    params = optax.tree.scale(scale, variables['params'])
    again = models.ViT(outputs=3, patch=4, width=8, heads=2)
    run(stitch.Segmented(*models.segments(again, params)), inputs)
  assert len(traced) == 1


@pytest.mark.parametrize('name', ['resnet', 'batch norm', 'vit', 'untied'])
def test_parts_cover_every_leaf_once(name: str) -> None:
  module, variables, _ = make(name)
  parts = models.segments(module, variables)
  size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  assert size(parts.params) == size(variables)


def test_a_tied_table_is_in_embedding_and_head() -> None:
  module, variables, _ = make('tied')
  params = models.segments(module, variables['params']).params
  chex.assert_trees_all_equal(
    params['embed']['embedding'], params['head']['embedding']
  )


def test_bad_input_is_named() -> None:
  vit, variables, _ = make('vit')
  with pytest.raises(ValueError, match=r'Dense is none of .*cut it by'):
    models.segments(nn.Dense(3), {})
  params = dict(variables['params'])
  params['block_O'] = params.pop('block_0')
  with pytest.raises(ValueError, match=r"lacks its part 'block_0'.*'block_O'"):
    models.segments(vit, params)
  params = {**variables['params'], 'block_3': {}}
  with pytest.raises(ValueError, match="has no part 'block_3'"):
    models.segments(vit, params)
  normed, variables, _ = make('batch norm')
  with pytest.raises(ValueError, match='batch normalisation: give its var'):
    models.segments(normed, variables['params'])
