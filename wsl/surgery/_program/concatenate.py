"""The blocks of several networks in one tree, for programs over all of them."""

from collections.abc import Sequence
from typing import Any

from wsl import types
from wsl.surgery._program import blocks as blocks_lib


def concatenate_blocks(
  models: Sequence[types.Params], *, blocks: str
) -> types.Params:
  r"""Returns a tree with the blocks of several networks, one after the other.

  A program over it takes blocks of any of them: with 32 blocks each, block i of
  the second network is 32 + i. Leaves outside the blocks are those of the first
  network. Nothing is read or copied, unless blocks are stacked.

  Args:
    models: networks of one kind, in memory, traced or on demand.
    blocks: a regular expression of the names of their blocks, as in
      ``apply_program``.

  Returns:
    The tree, whose blocks are numbered consecutively.

  Raises:
    ValueError: if there are no networks, or the blocks of one have leaves that
      the first does not have.

  Example:
    >>> import numpy as np
    >>> from wsl import surgery
    >>> a, b = ({f'h.{i}.w': np.full(1, x + i) for i in range(2)}
    ...         for x in (0.0, 10.0))
    >>> both = concatenate_blocks([a, b], blocks=r'h\.(\d+)\.')
    >>> program = surgery.passthrough(4, slices=[(0, 2), (3, 4)])
    >>> new = surgery.apply_program(both, program, blocks=r'h\.(\d+)\.')
    >>> [x.item() for x in new.values()]
    [0.0, 1.0, 11.0]

  Reference:
    Goddard et al., "Arcee's MergeKit: A Toolkit for Merging Large Language
    Models", 2024, arXiv:2403.13257 (passthrough merges).
  """
  if not models:
    raise ValueError('concatenate_blocks: no networks given: give one or more')
  cuts = [blocks_lib.cut('concatenate_blocks', m, blocks) for m in models]
  known = {place for place, *_ in cuts[0].form.paths}
  every: list[dict[Any, Any]] = []
  for i, one in enumerate(cuts):
    for block in one.blocks:
      for place in block:
        if place not in known:
          raise ValueError(
            f"concatenate_blocks: leaf '{blocks_lib.name(place)}' of network "
            f'{i} is in no block of network 0: give networks of one kind'
          )
    every += one.blocks
  return blocks_lib.join(every, cuts[0].outside, cuts[0].form)
