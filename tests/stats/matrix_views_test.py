"""Views of leaves as matrices, found from traced functions."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import merge, models, stats, tree

Matrix = tree.Matrix


def draw(shapes: Any, seed: int = 0, models: int = 2) -> Any:
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=(models, *x.shape))), shapes
  )


class Attention(nn.Module):
  """A residual block as in Flax's transformers, or a step of ``nn.scan``."""

  scanned: bool = False

  @nn.compact
  def __call__(self, x: Any, _: Any = None) -> Any:
    y = nn.LayerNorm(name='norm', param_dtype=float)(x)
    y = nn.MultiHeadDotProductAttention(
      2, qkv_features=6, name='attention', param_dtype=float
    )(y)
    y = nn.Dense(8, name='mlp', param_dtype=float)(x + y)
    y = x + y
    return (y, None) if self.scanned else y


class Model(nn.Module):
  """Tokens, positions, a scan over layers and a head."""

  @nn.compact
  def __call__(self, tokens: Any) -> Any:
    x = nn.Embed(11, 8, name='embed', param_dtype=float)(tokens)
    init = nn.initializers.normal()
    x = x + self.param('position', init, (1, tokens.shape[1], 8), float)
    layers = nn.scan(
      Attention,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      length=3,
    )
    x, _ = layers(scanned=True, name='layers')(x, None)
    return nn.Dense(5, name='head', param_dtype=float)(x)


def of(module: nn.Module, x: Any) -> tuple[Any, Any]:
  """Returns a model's shapes and views; Flax promotes dtypes and ranks."""
  apply_fn = lambda p, x: module.apply({'params': p}, x)
  with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)['params']
    return shapes, stats.matrix_views(apply_fn, shapes, x)


def test_scanned_layers_of_flax_are_those_of_the_rules_by_hand() -> None:
  shapes, found = of(Model(), jnp.zeros((2, 4), int))
  qkv = Matrix(batch=(0,), rows=(1,), columns=(2, 3))
  by_hand = {
    '(query|key|value)/kernel': qkv,
    'out/kernel': Matrix(batch=(0,), rows=(1, 2), columns=(3,)),
    'mlp/kernel': Matrix(batch=(0,), rows=(1,), columns=(2,)),
    'layers/.*(query|key|value)/bias': Matrix(batch=(0,), rows=(1, 2)),
    '^layers/': Matrix(batch=(0,), rows=(1,)),
    'position': None,
  }
  views = tree.views(shapes, found)
  assert views == tree.views(shapes, by_hand)
  assert views == tree.views(shapes, tree.scanned('^layers/'))
  assert views['embed']['embedding'] == Matrix(rows=(0,), columns=(1,))
  assert len(found) == sum(x.ndim > 1 for x in jax.tree.leaves(shapes))
  x = draw(shapes)
  for method in (merge.tsv, merge.iso_c):
    merged = method(x, matrices=found)
    wanted = method(x, matrices=by_hand)
    for name, leaf in tree.named(merged).items():
      assert leaf.tolist() == tree.named(wanted)[name].tolist(), name
    kernel = merged['layers']['attention']['query']['kernel'][1]
    query = x['layers']['attention']['query']['kernel'][:, 1]
    one = method({'w': query.reshape(2, 8, 6)})['w'].reshape(8, 2, 3)
    np.testing.assert_allclose(kernel, one, atol=1e-12)


@pytest.mark.parametrize(
  ('module', 'x'),
  [
    (models.ViT(outputs=3, depth=2, width=16), jnp.ones((2, 28, 28, 1))),
    (models.LanguageModel(32, width=16, hidden=24), jnp.ones((2, 6), int)),
    (models.ResNet(outputs=3), jnp.ones((2, 16, 16, 3))),
    (models.MLP(widths=(6, 5), outputs=3), jnp.ones((2, 7))),
  ],
  ids=['vit', 'language', 'resnet', 'mlp'],
)
def test_every_kernel_of_our_models_is_a_matrix(module: Any, x: Any) -> None:
  shapes, found = of(module, x)
  views = tree.named(
    tree.views(shapes, found), is_leaf=lambda v: isinstance(v, Matrix)
  )
  by_hand = tree.named(tree.views(shapes, tree.flax))
  kernels = [name for name in tree.named(shapes) if name.endswith('kernel')]
  assert kernels
  for name in kernels:
    assert views[name] == by_hand[name], name
    assert views[name].is_matrix
  if 'embedding/table' in views:  # tied: the product with h contracts d
    assert views['embedding/table'] == Matrix(rows=(1,), columns=(0,))
  assert 'position' not in views


def test_blocks_of_a_language_model_under_scan() -> None:
  module = models.LanguageModel(32, width=16, hidden=24, depth=3)
  tokens = jnp.ones((2, 6), int)
  params = module.init(jax.random.key(0), tokens)['params']
  parts = models.segments(module, params)

  def apply_fn(params: Any, tokens: Any) -> Any:
    h = parts.embed(params['embed'], tokens)
    step = lambda h, block: (parts.block(block, h), None)
    h, _ = jax.lax.scan(step, h, params['blocks'])
    return parts.head(params['head'], h)

  found = stats.matrix_views(apply_fn, parts.params, tokens)
  views = tree.named(tree.views(parts.params, found))
  for name, leaf in tree.named(parts.params['blocks']).items():
    kernel = Matrix(batch=(0,), rows=(1,), columns=(2,))
    scale = Matrix(batch=(0,), rows=(1,))
    assert views[f'blocks/{name}'] == (kernel if leaf.ndim == 3 else scale)


def test_experts_groups_and_altered_kernels() -> None:
  def conv(groups: int) -> Any:
    return lambda p, x: jax.lax.conv_general_dilated(
      *(x, p['w'], (1, 1), 'SAME'),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    )

  view = lambda fn, w, x: stats.matrix_views(
    fn, {'w': jnp.ones(w)}, jnp.ones(x)
  )
  assert view(conv(2), (3, 3, 2, 6), (1, 5, 5, 4)) == {
    '^w$': Matrix(rows=(0, 1, 2), columns=(3,), groups=2)
  }
  assert view(conv(4), (3, 3, 1, 4), (1, 5, 5, 4)) == {
    '^w$': Matrix(rows=(0, 1, 2), columns=(3,), groups=4)
  }
  experts = lambda p, x: jnp.einsum('ebd,edf->ebf', x, p['w'])
  assert view(experts, (3, 4, 5), (3, 2, 4)) == {
    '^w$': Matrix(batch=(0,), rows=(1,), columns=(2,))
  }
  stored = lambda p, x: jnp.einsum('ebd,efd->ebf', x, p['w'])
  assert view(stored, (3, 5, 4), (3, 2, 4)) == {
    '^w$': Matrix(batch=(0,), rows=(2,), columns=(1,))
  }
  altered = lambda p, x: x @ (2 * p['w']).reshape(4, 6)
  assert view(altered, (4, 2, 3), (5, 4)) == {}
  with pytest.raises(ValueError, match='more than two axes'):
    merge.tsv({'w': jnp.ones((2, 4, 2, 3))}, matrices={})
