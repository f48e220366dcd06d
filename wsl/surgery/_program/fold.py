"""FoldGPT: blocks of low gates are removed, the others share weights."""

import numpy as np

from wsl import tree, types
from wsl.surgery._program import program as program_lib


def fold(
  gates: types.ArrayLike,
  *,
  remove: int,
  group: int,
  untied: str | None = None,
) -> program_lib.Program:
  r"""Removes the blocks of the lowest gates, and ties the others in groups.

  Of each group of consecutive survivors the first block gives the weights.

  Args:
    gates: of the blocks, ``[D]``, from ``block_gates``; or any score by which
      the lowest are removed.
    remove: how many blocks to remove, 0 .. D - 1.
    group: how many consecutive survivors share their weights; the last group
      may be smaller.
    untied: a regular expression of leaves that every survivor keeps, such as
      ``'norm'``: the authors keep layer norms.

  Returns:
    The program: without removal and with groups of one block, the network.

  Raises:
    ValueError: if an argument is out of range.

  Example:
    >>> program = fold([0.9, 0.1, 0.8, 0.7], remove=1, group=2, untied='norm')
    >>> [(x.sources[0], x.own) for x in program.layers]
    [(0, 0), (0, 2), (3, None)]

  Reference:
    Liu et al., "FoldGPT: Simple and Effective Large Language Model Compression
    Scheme", 2024, arXiv:2407.00928. A reconstruction from the abstract: that
    the first block of a group gives the weights is not confirmed.
  """
  scores = np.asarray(gates, np.float64)
  if scores.ndim != 1 or not np.isfinite(scores).all() or not scores.size:
    raise ValueError(
      f'fold: gates {list(scores.shape)}: expected a finite number for each '
      'block'
    )
  depth = len(scores)
  tree.check_whole('fold', remove=remove, group=group)
  if not 0 <= remove < depth or group < 1:
    raise ValueError(
      f'fold: remove={remove}, group={group}: expected 0 <= remove < {depth} '
      'and group >= 1'
    )
  order = np.argsort(scores, kind='stable')
  kept = sorted(int(i) for i in order[remove:])
  layers = []
  for start in range(0, len(kept), group):
    members = kept[start : start + group]
    for i in members:
      single = len(members) == 1
      layers.append(
        program_lib.Layer(
          (members[0],),
          tied=None if single else start // group,
          own=None if single or untied is None else i,
        )
      )
  return program_lib.check_program(
    program_lib.Program(depth, tuple(layers), untied=untied)
  )
