"""In-the-Wild merging: random subsets of a pool of unlike experts."""

from typing import Any, NamedTuple

import numpy as np

from experiments._shared.protocols import _tables


class InTheWild(NamedTuple):
  """Merges of random subsets, by the number of merged experts.

  Attributes:
    sizes: the numbers of experts, increasing, ``[N]``.
    beats_base: share of merges above the base, ``[..., N]``.
    beats_best: share of merges above their best member, ``[..., N]``.
    over_base: mean gain over the base, in units of the score, ``[..., N]``.
    over_best: mean gain over the best member, ``[..., N]``.
  """

  sizes: np.ndarray
  beats_base: np.ndarray
  beats_best: np.ndarray
  over_base: np.ndarray
  over_best: np.ndarray


def in_the_wild(
  members: np.ndarray,
  merged: Any,
  alone: Any,
  base: Any,
  *,
  lower_is_better: bool = False,
) -> InTheWild:
  r"""Computes the statistics of in-the-wild merging.

  .. math:: P(\bar s_d > \bar b), \qquad \bar s_d - \bar b, \qquad
    \bar s_d - \max_{p \in M_d} \bar a_p

  over random subsets :math:`M_d` of a pool of unlike experts, with bars for
  means over K tasks. A gain over the best member is constructive interference.

  Args:
    members: M, the experts of each merge, ``[D, P]``.
    merged: s, scores of the merges on the K tasks, ``[..., D, K]``.
    alone: a, scores of the experts on the same tasks, ``[..., P, K]``.
    base: b, scores of the base, ``[..., K]``.
    lower_is_better: whether scores are losses; a gain is then a decrease.

  Returns:
    The statistics by the number of experts. A subset of one expert gains
    nothing over its best member.

  Raises:
    ValueError: if ``members`` does not fit the scores.

  Example:
    >>> members = np.array([[True, False], [True, True]])
    >>> found = in_the_wild(members, [[0.5], [0.75]], [[0.5], [0.25]], [0.5])
    >>> found.sizes.tolist(), found.beats_base.tolist()
    ([1, 2], [0.0, 1.0])
    >>> found.over_base.tolist(), found.over_best.tolist()
    ([0.0, 0.25], [0.0, 0.25])

  Reference:
    Hitit et al., "A Systematic Study of In-the-Wild Model Merging for Large
    Language Models", 2025, arXiv:2511.21437.
  """
  members = _tables.members('in_the_wild', members, merged, 'merged')
  sign = -1 if lower_is_better else 1
  merged, alone, base = (
    sign * np.asarray(x, np.float64).mean(-1) for x in (merged, alone, base)
  )
  if alone.shape[-1:] != members.shape[1:]:
    raise ValueError(
      f'in_the_wild: alone has shape {alone.shape} without tasks for '
      f'{members.shape[1]} experts'
    )
  best = np.where(members, alone[..., None, :], -np.inf).max(-1)
  over_base, over_best = merged - base[..., None], merged - best
  sizes, _ = _tables.by_size(members, over_base)
  return InTheWild(
    sizes,
    *(
      _tables.by_size(members, values)[1]
      for values in (over_base > 0, over_best > 0, over_base, over_best)
    ),
  )
