"""Operations of ``surgery`` on masks, stages and patches."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from tests.operations import inputs
from wsl import deltas, surgery, tree, types


def parts(dtype: Any) -> list[inputs.Table]:
  return [_sparse(dtype), _recovery(dtype)]


def _sparse(dtype: Any) -> inputs.Table:
  weight = {'w': inputs.normal(dtype, 8, 4, seed=1)}
  masks = {'w': jnp.tile(jnp.asarray([[True], [False]]), (4, 4))}
  params = surgery.mask(weight, masks)
  view = tree.Matrix(rows=(0,), columns=(1,))
  normal = lambda *shape: inputs.normal(dtype, *shape, seed=2)
  factors = {'w': deltas.Factors(normal(2, 8), normal(4, 2), 0.5, (8, 4), view)}
  x = normal(20, 8).astype(tree.wide_dtype(weight['w']))
  grams = {'w': types.Gram(tree.matmul(x.T, x)[None] / 20)}
  found: inputs.Table = {
    f'surgery.magnitude_masks, {scope}': (
      lambda p, scope=scope: surgery.magnitude_masks(
        p, sparsity=0.75, scope=scope
      ),
      (params,),
    )
    for scope in ('global', 'leaf', 'output')
  }
  return found | {
    'surgery.pattern_masks': (
      lambda p: surgery.pattern_masks(p, keep=2, of=4), (params,)
    ),
    'surgery.wanda_scores': (surgery.wanda_scores, (params, grams)),
    'surgery.mask': (surgery.mask, (weight, masks)),
    'surgery.unmask': (surgery.unmask, (params,)),
    'surgery.add_sparse': (surgery.add_sparse, (params, factors)),
    'surgery.reconstruct': (surgery.reconstruct, (params, weight, grams)),
  }  # fmt: skip


def _recovery(dtype: Any) -> inputs.Table:
  draw = lambda seed, *shape: inputs.normal(dtype, *shape, seed=seed)
  stages = {'w': draw(1, 4, 3, 2)}
  kernel, x = {'w': draw(2, 3, 3, 1, 2)}, draw(3, 1, 5, 5, 1)

  def conv(params: types.Params, x: types.Array) -> types.Array:
    return jax.lax.conv_general_dilated(
      x, params['w'], (1, 1), 'SAME', precision='highest',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip

  patches = surgery.channel_patches(conv, kernel, x)
  loss = lambda p, x: jnp.sum(jnp.square(p['blocks']['w'] - x))
  simulate = lambda p, key: surgery.simulate_failures(
    loss, p, optax.sgd(0.1), jnp.zeros((3, 1, 1, 1), dtype), rate=0.2, key=key
  )
  rule = surgery.merge_past({'w': stages['w']}, momentum=0.5)
  one = {'w': stages['w'][0]}
  return {
    'surgery.recover_stages': (
      lambda p: surgery.recover_stages(p, [0, 2]), (stages,)
    ),
    'surgery.robust_signatures': (surgery.robust_signatures, (stages, one)),
    'surgery.merge_past': (lambda u, p: rule.update(u, (), p)[0], (one, one)),
    'surgery.reprogrammed': (
      surgery.reprogrammed(conv), (kernel, patches, x)
    ),
    'surgery.simulate_failures': (
      simulate, ({'blocks': stages}, jax.random.key(0))
    ),
  }  # fmt: skip
