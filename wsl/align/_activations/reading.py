"""How the units of an array of activations move."""

from collections.abc import Mapping, Sequence
import itertools
from typing import NamedTuple

import numpy as np

from wsl.align import _blocks, _symmetry
from wsl.align._gauges import elements


class Reading(NamedTuple):
  """How the units of one block of an array move.

  Attributes:
    group: the group whose gains it has: of units, of a matrix, or the products
      of signs, whose name joins those of the actions.
    factors: those of the axes, outer ones first.
    acts: the actions on the last of these axes.
    signs: the actions whose signs change it.
    frames_only: whether other groups are among the rows, in another order in
      each model: then only moments of one model mean anything.
  """

  group: str
  factors: _blocks.Factors
  acts: tuple[elements.Act, ...] = ()
  signs: tuple[str, ...] = ()
  frames_only: bool = False


def of_group(symmetry: _symmetry.Symmetry, name: str) -> Reading:
  """Returns the reading of a group on which no action acts."""
  factor = symmetry.factor[name]
  outer = (symmetry.factor[other] for other in factor.outer)
  return Reading(name, (*outer, factor))


def rank(rows: Sequence[Mapping[str, float]]) -> int:
  """Returns the rank of powers by the names of actions."""
  return int(np.linalg.matrix_rank(matrix(rows)[0]))


def matrix(
  rows: Sequence[Mapping[str, float]],
) -> tuple[np.ndarray, list[str]]:
  """Returns powers as a matrix, and the names of its columns."""
  names = [*dict.fromkeys(itertools.chain(*rows))]
  return np.asarray([[row.get(n, 0.0) for n in names] for row in rows]), names
