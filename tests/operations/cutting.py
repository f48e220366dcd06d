"""Operations of ``surgery``."""

from typing import Any

import jax
import jax.numpy as jnp

from tests.operations import experts, inputs, pruning, slicing
from wsl import deltas, stitch, surgery

_BLOCKS = r'block_(\d+)/'


def parts(dtype: Any) -> list[inputs.Table]:
  return [
    _programs(dtype), *slicing.parts(dtype), experts.table(dtype),
    *pruning.parts(dtype),
  ]  # fmt: skip


def _same(p: Any, h: jax.Array) -> jax.Array:
  return h


def _block(p: Any, h: jax.Array) -> jax.Array:
  return h + inputs.dense(p, h)


def _programs(dtype: Any) -> inputs.Table:
  draw = lambda seed: {'kernel': inputs.normal(dtype, 4, 5, seed=seed)}
  params = {f'block_{i}': draw(i) for i in range(4)}
  program = surgery.recursive(4, loops=2, init='average', rank=2)
  tie = lambda p: surgery.tie(p, program, blocks=_BLOCKS)
  layers = {'embed': {}, 'blocks': inputs.normal(dtype, 2, 4, 4), 'head': {}}
  network = stitch.Segmented(layers, _same, _block, _same)
  x, gates = inputs.normal(dtype, 3, 4), inputs.normal(dtype, 2)
  return {
    'surgery.apply_program': (
      lambda p: surgery.apply_program(p, program, blocks=_BLOCKS), (params,)
    ),
    'surgery.tie': (lambda p: deltas.dense(tie(p).own), (params,)),
    'surgery.untie': (surgery.untie, (tie(params),)),
    'surgery.follow': (surgery.follow, (network, jnp.asarray([1, 0, 1]), x)),
    'surgery.gated_apply': (surgery.gated_apply, (network, gates, x)),
  }  # fmt: skip
