"""Operations of ``surgery`` on experts and bricks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.operations import inputs
from wsl import align, deltas, surgery, tree


def _mlp(p: Any, x: Any) -> Any:
  return inputs.dense(p['down'], jax.nn.relu(inputs.dense(p['up'], x)))


_UNIT, _INPUT = align.Factor('h', 4), align.Factor('x', 6, 'an input')
_SYMMETRY = align.Symmetry(
  (_UNIT, _INPUT),
  (('down', ((('h',),), (('x',),))), ('up', ((('x',),), (('h',),)))),
)


def table(dtype: Any) -> inputs.Table:
  draw = lambda *shape: inputs.normal(dtype, *shape)
  mlp = {'up': draw(6, 4), 'down': draw(4, 6)}
  layer = {'experts': {'up': draw(3, 6, 4)}, 'router': {'kernel': draw(6, 3)}}
  mlp_stack = {'up': draw(2, 6, 4)}
  groups = surgery.ExpertGroups(np.asarray([0, 1, 0]), np.asarray([0, 1]))
  view = tree.Matrix(batch=(0,), rows=(1,), columns=(2,))
  compressed = surgery.CompressedExperts(
    {'up': deltas.Factors(draw(2, 1, 6), draw(2, 4, 1), 1.0, (2, 6, 4), view)},
    {'up': surgery.ResidualColumns(np.asarray([[0], [2]]), draw(2, 6, 1))},
    {},
  )
  brick = surgery.brick_of_units(_SYMMETRY, [0, 2])
  values = {'up': draw(6, 2), 'down': draw(2, 6)}

  def split(p: Any, gates: Any, x: Any) -> Any:
    found = surgery.split_units(p, [[0, 2], [1, 3]], symmetry=_SYMMETRY)
    return surgery.apply_experts(_mlp, found, gates, x)

  return {
    'surgery.split_units': (
      lambda p: surgery.split_units(p, [[0, 2]], symmetry=_SYMMETRY), (mlp,)
    ),
    'surgery.apply_experts': (split, (mlp, draw(2, 2), draw(2, 6))),
    'surgery.upcycle': (
      lambda p, noise: surgery.upcycle(
        p, experts=2, width=6, key=inputs.KEY, mlps='', noise=noise
      ),
      (mlp, jnp.asarray(0.1, dtype)),
    ),
    'surgery.merge_experts': (
      lambda p: surgery.merge_experts(p, groups, usage=[0.5, 0.3, 0.2]),
      (layer['experts'],),
    ),
    'surgery.tie_experts': (
      lambda p: surgery.tie_experts(p, groups), (mlp_stack,)
    ),
    'surgery.drop_experts': (
      lambda p: surgery.drop_experts(p, [0, 2]), (layer,)
    ),
    'surgery.restore_experts': (surgery.restore_experts, (compressed,)),
    'surgery.domain_scores': (
      surgery.domain_scores, (draw(2, 6), draw(3, 6))
    ),
    'surgery.router_loss': (surgery.router_loss, (draw(2, 3), draw(2, 3))),
    'surgery.retrieve_brick': (
      lambda p: surgery.retrieve_brick(p, brick), (mlp,)
    ),
    'surgery.update_brick': (
      lambda p, v: surgery.update_brick(p, brick, v), (mlp, values)
    ),
    'surgery.grow_brick': (
      lambda p, v: surgery.grow_brick(p, brick, v), (mlp, values)
    ),
  }  # fmt: skip
