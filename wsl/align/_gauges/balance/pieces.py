"""The blocks of a model whose norm scales and linear maps change."""

from typing import NamedTuple

import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _symmetry
from wsl.align._gauges import elements


class Piece(NamedTuple):
  """A block of a leaf, and the scales and linear maps that act on it.

  Attributes:
    leaf: the name of the leaf.
    block: ``[*sizes]``, in float32 or wider; sums over it are in float64.
    factors: of the block.
    acts: the actions on it.
  """

  leaf: str
  block: np.ndarray
  factors: _blocks.Factors
  acts: tuple[elements.Act, ...]


def read(
  params: types.Params,
  symmetry: _symmetry.Symmetry,
  names: set[str],
  leaves: types.Leaves,
  argument: str,
) -> list[Piece]:
  """Reads the blocks on which some actions act, in float32 or wider.

  Args:
    params: the model.
    symmetry: its symmetry.
    names: the actions.
    leaves: the leaves whose norm counts.
    argument: the name of the function and of its argument in messages.

  Raises:
    ValueError: if a leaf is not finite.
  """
  selected = tree.named(tree.select(params, leaves))
  found = []
  for name, leaf in tree.named(params).items():
    acts = elements.acts_of(symmetry, name, names)
    if not (acts and selected[name] and tree.is_float(leaf)):
      continue
    x = np.asarray(tree.read(leaf))
    x = x.astype(tree.wide_dtype(x), copy=False)
    if not np.isfinite(x).all():
      raise ValueError(f"{argument}: leaf '{name}' has NaN or inf")
    cut = _blocks.to_blocks(x, symmetry.layout(name))
    for block, factors, here in elements.with_acts(cut, acts):
      if here:
        found.append(Piece(name, block, factors, here))
  return found
