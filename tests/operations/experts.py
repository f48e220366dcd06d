"""Operations of ``surgery`` on experts and bricks."""

from typing import Any

import jax
import jax.numpy as jnp

from tests.operations import inputs
from wsl import align, surgery


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
