r"""Frames in which the activations of two models differ by isometries.

A scale s acts on the activations of a unit as :math:`s^c`, with root mean
square r: the logarithm of the scale of the frame is the solution of
:math:`c \log s = -\log r` of smallest norm, over all activations of the unit. A
linear map acts on vectors with second moments G and on covectors with H: the
map of the frame is the root of :math:`G^{-1} \# H`, or of :math:`G^{-1}` or H
if there are only vectors or only covectors. Then

.. math:: A = G_a^{1/2} R\, G_b^{-1/2}

for a rotation R between the frames.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias
import warnings

import numpy as np

from wsl.align import _symmetry
from wsl.align._activations import (
  activation_moments,
)
from wsl.align._activations import (
  reading as reading_lib,
)
from wsl.align._gauges import balanced_pair, gram_means

Observed: TypeAlias = tuple[reading_lib.Reading, activation_moments.Moments]


def of(
  observed: Sequence[Observed],
  symmetry: _symmetry.Symmetry,
  centred: bool,
  dtype: Any,
) -> balanced_pair.Frames:
  """Returns the frames of two models; warns of what has no frame.

  Args:
    observed: all readings with their moments.
    symmetry: the symmetry, with the actions that are matched.
    centred: whether moments are those about the mean.
    dtype: of the element that is found between the frames.
  """
  both: list[dict[str, np.ndarray]] = []
  kept: dict[str, str] = {}
  for model, name in enumerate(('fixed', 'moving')):
    tables = _scales(observed, symmetry, model, centred)
    for action in symmetry.actions:
      if action.kind == 'linear':
        grams = _grams(observed, action.name, model, centred)
        if any(map(gram_means.dependent, grams)):
          kept[action.name] = name
        elif any(gram is not None for gram in grams):
          tables[action.name] = gram_means.root(*grams)
    both.append(tables)
  for kept_name, name in kept.items():
    warnings.warn(
      f"activation_matching: '{kept_name}' is matched by rotations only: the "
      f'activations of the units of a head are linearly dependent in {name}',
      stacklevel=4,
    )
  fixed, moving = (
    {n: x for n, x in tables.items() if n not in kept} for tables in both
  )
  return balanced_pair.Frames(symmetry, fixed, moving, dtype)


def _scales(
  observed: Sequence[Observed],
  symmetry: _symmetry.Symmetry,
  model: int,
  centred: bool,
) -> dict[str, np.ndarray]:
  """Returns the scales, and the moduli of phases, of the frame of a model."""
  rows: dict[Any, list[tuple[dict[str, float], np.ndarray]]] = {}
  for reading, moments in observed:
    found = activation_moments.second(moments, model, centred)
    scales = {a.name: a.power for a in reading.acts if a.kind == 'scale'}
    phases = {
      a.name: a.power for a in reading.acts if a.kind == 'phase' and not a.unit
    }
    if scales:
      square = found[..., 0] if reading.signs else found
      key = reading.factors[-1].name
      rows.setdefault(key, []).append((scales, square))
    if phases:
      rows.setdefault((*phases,), []).append((phases, found.sum(-1)))
  tables: dict[str, np.ndarray] = {}
  for given in rows.values():
    powers, names = reading_lib.matrix([row for row, _ in given])
    # A unit that is zero on all rows keeps its scale.
    logs = np.stack([np.log(np.where(x > 0, x, 1)) / 2 for _, x in given])
    solved = np.exp(-np.tensordot(np.linalg.pinv(powers), logs, 1))
    for name, table in zip(names, solved):
      phase = symmetry.action[name].kind == 'phase'
      zero = np.zeros_like(table)
      tables[name] = np.stack([table, zero], -1) if phase else table
  return tables


def _grams(
  observed: Sequence[Observed], name: str, model: int, centred: bool
) -> list[Any]:
  """Returns the second moments of vectors and of covectors, or None."""
  found: list[Any] = [None, None]
  for reading, moments in observed:
    for act in reading.acts:
      if act.name == name:
        gram = activation_moments.gram(moments, model, centred)
        k = int(act.power < 0)
        found[k] = gram if found[k] is None else found[k] + gram
  return found
