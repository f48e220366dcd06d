"""Operations of ``surgery``."""

from typing import Any

from tests.operations import experts, inputs, pruning, slicing
from wsl import surgery

_BLOCKS = r'block_(\d+)/'


def parts(dtype: Any) -> list[inputs.Table]:
  return [
    _programs(dtype), *slicing.parts(dtype), experts.table(dtype),
    *pruning.parts(dtype),
  ]  # fmt: skip


def _programs(dtype: Any) -> inputs.Table:
  draw = lambda seed: {'kernel': inputs.normal(dtype, 4, 5, seed=seed)}
  params = {f'block_{i}': draw(i) for i in range(4)}
  program = surgery.recursive(4, loops=2, init='average', rank=2)
  tie = lambda p: surgery.tie(p, program, blocks=_BLOCKS)
  return {
    'surgery.apply_program': (
      lambda p: surgery.apply_program(p, program, blocks=_BLOCKS), (params,)
    ),
    'surgery.tie': (lambda p: tie(p).own, (params,)),
    'surgery.untie': (surgery.untie, (tie(params),)),
  }  # fmt: skip
