"""What matters at scale: scores by the number of merged experts."""

import functools
from typing import Any, NamedTuple

import numpy as np

from experiments._shared.protocols import _tables


class AtScale(NamedTuple):
  """Normalised scores by the number of merged experts.

  Attributes:
    sizes: the numbers of experts, increasing, ``[N]``.
    held_in: on the tasks of the merged experts, ``[..., N]``.
    held_out: on tasks without an expert, ``[..., N]``; NaN if not given.
  """

  sizes: np.ndarray
  held_in: np.ndarray
  held_out: np.ndarray


def at_scale(
  members: np.ndarray,
  held_in: Any,
  experts: Any,
  *,
  held_out: Any = None,
  base: Any = None,
  lower_is_better: bool = False,
) -> AtScale:
  r"""Computes the statistics of "What Matters for Model Merging at Scale?".

  .. math:: \mathrm{in}_n = \operatorname{mean}_{d : |M_d| = n}
    \frac1n \sum_{t \in M_d} \frac{s_{dt}}{e_t}, \qquad
    \mathrm{out}_n = \operatorname{mean}_{d : |M_d| = n}
    \frac1H \sum_h \frac{s_{dh}}{b_h}

  Call it for each size of the model, or give sizes as a leading axis. That
  held-in scores are relative to experts and held-out ones to the base is a
  reconstruction of the paper's denominators.

  Args:
    members: M, the experts of each merge, ``[D, T]``; expert t has task t.
    held_in: s, scores of the merges on the experts' tasks, ``[..., D, T]``;
      those of tasks whose expert is not a member are not read.
    experts: e, the score of each expert on its own task, ``[..., T]``, > 0.
    held_out: scores of the merges on H other tasks, ``[..., D, H]``, or None.
    base: b, scores of the base on the other tasks, ``[..., H]``, > 0.
    lower_is_better: whether scores are losses.

  Returns:
    The statistics by the number of experts.

  Raises:
    ValueError: if a denominator is not positive, one of ``held_out`` and
      ``base`` is missing, or ``members`` does not fit the scores.

  Example:
    >>> members = np.array([[True, False], [False, True], [True, True]])
    >>> found = at_scale(members, [[0.8, 0.1], [0.1, 0.5], [0.4, 0.5]],
    ...                  [0.8, 0.5], held_out=[[0.2], [0.2], [0.3]], base=[0.2])
    >>> found.sizes.tolist(), found.held_in.tolist(), found.held_out.round(2)
    ([1, 2], [1.0, 0.75], array([1. , 1.5]))

  Reference:
    Yadav et al., "What Matters for Model Merging at Scale?", 2024,
    arXiv:2410.03617.
  """
  if (held_out is None) != (base is None):
    raise ValueError('at_scale: give held_out and base, or neither')
  relative = functools.partial(
    _tables.relative, 'at_scale', lower_is_better=lower_is_better
  )
  members = _tables.members('at_scale', members, held_in, 'held_in')
  ratio = relative(held_in, _tables.row(experts), 'experts')
  if ratio.shape[-1] != members.shape[1]:
    raise ValueError(
      f'at_scale: held_in has {ratio.shape[-1]} tasks for {members.shape[1]} '
      'experts'
    )
  inside = np.where(members, ratio, 0).sum(-1) / members.sum(1)
  sizes, means = _tables.by_size(members, inside)
  outside = np.full(means.shape, np.nan)
  if held_out is not None:
    _tables.members('at_scale', members, held_out, 'held_out')
    ratio = relative(held_out, _tables.row(base), 'base')
    _, outside = _tables.by_size(members, ratio.mean(-1))
  return AtScale(sizes, means, outside)
