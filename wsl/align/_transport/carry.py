r"""Carries a model to other widths along couplings of its units.

A coupling T has the rows of the fixed units and the columns of the moving ones.
Leaves that compute a unit are averaged over its partners, and leaves whose
product sums over the units are divided among them:

.. math:: R_{ij} = \frac{T_{ij}}{\sum_l T_{il}}, \qquad
  D_{ij} = \kappa_j \frac{T_{ij}}{\sum_k T_{kj}}.

With these, :math:`\sum_i (D w)_i (R h)_i` is :math:`\sum_j w_j h_j` if no row
has two partners of different activations.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _symmetry
from wsl.align._transport import blocks as blocks_lib


class Maps(NamedTuple):
  """The matrices of one coupling, ``[*outer, *free outer, n, m]``.

  Attributes:
    average: R, its rows sum to 1.
    divide: D, its columns sum to the kept share of each unit.
  """

  average: np.ndarray
  divide: np.ndarray


def maps_of(coupling: np.ndarray, mass: np.ndarray | None = None) -> Maps:
  """Returns the matrices that carry the axes of a group.

  Args:
    coupling: T ``[*outer, *free outer, n, m]``, not negative.
    mass: of the moving units, ``[..., m]``: a unit of which a smaller mass is
      transported keeps this share of its outgoing weights. None: all of them.
  """
  rows = coupling.sum(-1, keepdims=True)
  columns = coupling.sum(-2, keepdims=True)
  # kappa_j = min(1, transported mass / mass), so that kappa_j / columns_j =
  # 1 / max(columns_j, mass_j).
  whole = columns if mass is None else np.maximum(columns, mass[..., None, :])
  return Maps(_divide(coupling, rows), _divide(coupling, whole))


def carry(block: blocks_lib.Block, maps: Mapping[str, Maps]) -> np.ndarray:
  """Returns the moving model's block in the shape of the fixed one's."""
  moved = [i for i, axis in enumerate(block.axes) if axis.group]
  labels = blocks_lib.moving_labels(block.axes)
  x, labels = blocks_lib.apply(
    block.moving, labels, block.axes, moved, matrices(block.axes, moved, maps)
  )
  return x.transpose([labels.index(i) for i in range(x.ndim)])


def matrices(
  axes: tuple[blocks_lib.Axis, ...], moved: list[int], maps: Mapping[str, Maps]
) -> dict[int, np.ndarray]:
  """Returns for each moved axis the matrix that carries it."""
  kind = {True: 'divide', False: 'average'}
  return {
    i: getattr(maps[axes[i].group], kind[axes[i].contracted]) for i in moved
  }


def carry_model(
  params: types.Params,
  maps: Mapping[str, Maps],
  *,
  symmetries: tuple[_symmetry.Symmetry, _symmetry.Symmetry],
  contracted: Mapping[str, frozenset[int]],
) -> types.Params:
  """Carries every float leaf of a model; others are not changed.

  Args:
    params: the moving model.
    maps: for each group its matrices.
    symmetries: of the fixed and the moving model.
    contracted: as in ``blocks.load``.
  """
  fixed, moving = symmetries

  def one(name: str, x: types.Array) -> Any:
    axes = blocks_lib.axes_of(name, fixed, contracted)
    floats = jnp.issubdtype(x.dtype, jnp.floating)
    if not floats or not any(axis.group for place in axes for axis in place):
      return x
    stored = tree.read(x)
    wide = np.asarray(stored).astype(np.float64)
    parts = [
      carry(blocks_lib.Block(place, part, part), maps)
      for place, (part, _) in zip(
        axes, _blocks.to_blocks(wide, moving.layout(name))
      )
    ]
    joined = _blocks.from_blocks(parts, fixed.layout(name), np)
    joined = joined.astype(x.dtype)
    return joined if isinstance(stored, np.ndarray) else jax.device_put(joined)

  return tree.map_named(one, params)


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Divides, with 0 where the denominator is 0."""
  return np.divide(x, y, out=np.zeros_like(x), where=y > 0)
