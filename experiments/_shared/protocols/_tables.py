"""Relative scores, members of merges, and means by their number."""

from typing import Any

import numpy as np


def relative(
  name: str, scores: Any, over: Any, argument: str, *, lower_is_better: bool
) -> np.ndarray:
  """Returns scores relative to others, above 1 where they are better.

  Args:
    name: of the protocol, for the message.
    scores: of merges.
    over: to compare with; they broadcast.
    argument: the name of ``over``.
    lower_is_better: whether scores are losses; their ratio is inverted.

  Returns:
    The ratios.

  Raises:
    ValueError: if a denominator is not positive.
  """
  scores, over = np.asarray(scores, np.float64), np.asarray(over, np.float64)
  if not ((scores if lower_is_better else over) > 0).all():
    wrong = 'losses of merges' if lower_is_better else argument
    raise ValueError(f'{name}: {wrong} must be > 0, ratios divide by them')
  return over / scores if lower_is_better else scores / over


def row(scores: Any) -> np.ndarray:
  """Returns scores ``[..., K]`` as those of each merge, ``[..., 1, K]``."""
  return np.asarray(scores, np.float64)[..., None, :]


def members(name: str, members: Any, scores: Any, argument: str) -> np.ndarray:
  """Returns the members of merges as booleans ``[D, P]``.

  Args:
    name: of the protocol, for the message.
    members: ``[D, P]``.
    scores: of the merges, ``[..., D, K]``.
    argument: the name of ``scores``.

  Returns:
    The members.

  Raises:
    ValueError: if a merge has no member, or the scores have another D.
  """
  members = np.asarray(members, bool)
  if members.ndim != 2 or not members.any(1).all():
    raise ValueError(
      f'{name}: members has shape {members.shape}: give [D, P] with one expert '
      'or more in each row'
    )
  shape = np.shape(scores)
  if len(shape) < 2 or shape[-2] != len(members):
    raise ValueError(
      f'{name}: {argument} has shape {shape}: give [..., {len(members)}, tasks]'
    )
  return members


def by_size(
  members: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Averages ``[..., D]`` over merges of as many experts; sizes, means."""
  counts = members.sum(1)
  sizes = np.unique(counts)
  means = [values[..., counts == size].mean(-1) for size in sizes]
  return sizes, np.stack(means, -1)
