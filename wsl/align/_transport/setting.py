"""The constants of a search, and its starts."""

from typing import NamedTuple

import numpy as np

from wsl.align import _symmetry
from wsl.align._transport import blocks as blocks_lib
from wsl.align._transport import costs, couplings


class Setting(NamedTuple):
  """The constants of a search.

  Attributes:
    blocks: of both models.
    symmetry: of the fixed model.
    masses: of the units of every group.
    problem: the kind of the couplings.
  """

  blocks: list[blocks_lib.Block]
  symmetry: _symmetry.Symmetry
  masses: dict[str, costs.Masses]
  problem: couplings.Problem


def marginals(setting: Setting, name: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the masses, spread over the outer indices of both models."""
  factor, masses = setting.symmetry.factor[name], setting.masses[name]
  free = [not setting.symmetry.factor[o].pinned for o in factor.outer]
  outer, old = range(len(free)), sum(free)
  rows = np.expand_dims(masses.fixed, tuple(range(len(free), len(free) + old)))
  # Free outer axes of the moving masses are old indices, after all new ones.
  order = (*sorted(outer, key=lambda i: free[i]), len(free))
  columns = np.expand_dims(
    masses.moving.transpose(order), tuple(i for i in outer if free[i])
  )
  return rows, columns


def independent(setting: Setting) -> blocks_lib.Couplings:
  """Returns the product couplings, in which all partners are alike.

  A group that is in no selected block is not matched: it keeps its order.
  """
  present = {axis.group for block in setting.blocks for axis in block.axes}
  found = diagonal(setting)
  for name in present - {''}:
    rows, columns = marginals(setting, name)
    found[name] = rows[..., None] * columns[..., None, :] / rows.shape[-1]
  return found


def diagonal(setting: Setting) -> blocks_lib.Couplings:
  """Returns the couplings of units of equal index, modulo the smaller width."""
  found = {}
  for name in setting.masses:
    rows, columns = marginals(setting, name)
    n, m = rows.shape[-1], columns.shape[-1]
    i, j = np.arange(n)[:, None], np.arange(m)
    partners = (i % m == j) if n >= m else (j % n == i)
    mass = rows[..., None] if n >= m else columns[..., None, :]
    # The other side's masses are not those of the transport, only its shape.
    shape = np.broadcast_shapes(rows.shape[:-1], columns.shape[:-1])
    found[name] = np.broadcast_to(partners * mass, (*shape, n, m))
  return found
