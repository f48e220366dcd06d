r"""Frames in which the activations of two models differ by isometries.

A scale s acts on the activations of a unit as :math:`s^c`, with root mean
square r: the logarithm of the scale of the frame is the solution of
:math:`c \log s = -\log r` of smallest norm, over all activations of the unit. A
linear map acts on vectors with second moments G and on covectors with H: the
map of the frame is the root of :math:`G^{-1} \# H`, or of :math:`G^{-1}` or H
if there are only vectors or only covectors. Then

.. math:: A = G_a^{1/2} R\, G_b^{-1/2}

for a rotation R between the frames. If the units are linearly dependent, G is
singular: the frame of its null space is a multiple of an isometry, so that A is
exact where the activations vary.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias
import warnings

import numpy as np

from wsl.align import _symmetry
from wsl.align._activations import activation_moments
from wsl.align._activations import reading as reading_lib
from wsl.align._gauges import balanced_pair
from wsl.align._gauges.balance import gram_means

_ROUNDING = 10  # size of singular values that count as zero, in roundings
Observed: TypeAlias = tuple[reading_lib.Reading, activation_moments.Moments]


def of(
  observed: Sequence[Observed],
  symmetry: _symmetry.Symmetry,
  centred: bool,
  dtype: Any,
) -> balanced_pair.Frames:
  """Returns the frames of two models; warns of actions without one.

  Args:
    observed: all readings with their moments.
    symmetry: the symmetry, with the actions that are matched.
    centred: whether moments are those about the mean.
    dtype: of the element that is found between the frames.
  """
  both = [_scales(observed, symmetry, model, centred) for model in (0, 1)]
  reasons: list[str] = []
  # Activations have rounding errors of their own dtype.
  tolerance = max(gram_means.RANK, _ROUNDING * float(np.finfo(dtype).eps))
  for action in symmetry.actions:
    if action.kind == 'linear':
      pairs = [_grams(observed, action.name, k, centred) for k in (0, 1)]
      frames, reason = _linear(pairs, tolerance)
      if reason:
        reasons.append(f"'{action.name}' is matched {reason}")
      for tables, frame in zip(both, frames):
        tables[action.name] = frame
  _warn(observed, symmetry, reasons, centred)
  return balanced_pair.Frames(symmetry, both[0], both[1], dtype)


def _linear(
  pairs: Sequence[Sequence[Any]], tolerance: float
) -> tuple[list[np.ndarray], str]:
  """Returns the frames of a linear map of both models, and a remark.

  Args:
    pairs: for each model the second moments of vectors and of covectors.
    tolerance: relative size of singular values that count as zero.
  """
  present = [k for k in (0, 1) if pairs[0][k] is not None]
  full = [
    k
    for k in present
    if not any(gram_means.dependent(grams[k], tolerance) for grams in pairs)
  ]
  if not present:
    return [], ''
  if full:
    # q moves by A and k by its inverse transpose: either determines A.
    kept = [[g if k in full else None for k, g in enumerate(p)] for p in pairs]
    return [gram_means.root(*grams) for grams in kept], ''
  why = 'as the units of a head are linearly dependent on the data'
  if len(present) > 1:
    return [], f'by rotations only, {why}'
  filled = [[_filled(g, tolerance) for g in grams] for grams in pairs]
  frames = [gram_means.root(*grams) for grams in filled]
  return frames, f'where they vary only, {why}'


def _filled(gram: Any, tolerance: float) -> Any:
  """Replaces eigenvalues of zero by the mean of the other ones."""
  if gram is None:
    return None
  s, u = np.linalg.eigh(gram)
  alive = s > tolerance**2 * s[..., -1:]
  total = np.where(alive, s, 0).sum(-1, keepdims=True)
  mean = total / np.maximum(alive.sum(-1, keepdims=True), 1)
  s = np.where(alive, s, np.where(mean > 0, mean, 1))
  return (u * s[..., None, :]) @ np.swapaxes(u, -1, -2)


def _warn(
  observed: Sequence[Observed],
  symmetry: _symmetry.Symmetry,
  reasons: list[str],
  centred: bool,
) -> None:
  """Warns of actions that the activations do not determine, and why."""
  seen = {act.name for reading, _ in observed for act in reading.acts}
  reasons += [
    f"'{action.name}' is not matched: no product with its leaves shows it"
    for action in symmetry.actions
    if action.name not in seen
  ]
  for reading, moments in observed:
    names = [act.name for act in reading.acts if act.kind == 'scale']
    for model, argument in enumerate(('fixed', 'moving')) if names else ():
      dead = activation_moments.second(moments, model, centred) <= 0
      if dead.any():
        reasons.append(
          f"'{names[0]}' has the mean of other units at {dead.sum()} units of "
          f'{argument} that do not vary'
        )
  for reason in dict.fromkeys(reasons):
    warnings.warn(f'activation_matching: {reason}', stacklevel=5)


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
    logs = np.stack([_log_root(x) for _, x in given])
    # c log s = -log r for each activation; the pseudo-inverse has the solution
    # of smallest norm.
    solved = np.exp(-np.tensordot(np.linalg.pinv(powers), logs, 1))
    for name, table in zip(names, solved):
      phase = symmetry.action[name].kind == 'phase'
      zero = np.zeros_like(table)
      tables[name] = np.stack([table, zero], -1) if phase else table
  return tables


def _log_root(square: np.ndarray) -> np.ndarray:
  """Returns the logarithms of roots; the mean of others in place of zeros."""
  alive = square > 0
  logs = np.log(np.where(alive, square, 1)) / 2
  mean = logs.sum() / max(alive.sum(), 1)
  return np.where(alive, logs, mean)


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
