"""MergeBench: normalised score, forgetting and time of a merge."""

import functools
from typing import Any, NamedTuple

import numpy as np

from experiments._shared.protocols import _tables


class MergeBench(NamedTuple):
  """The statistics of MergeBench, ``[...]`` each.

  Attributes:
    normalised: mean over tasks of the score relative to the task's expert.
    forgetting: loss on general tasks relative to the base; NaN without them.
    seconds: of all merges of the search and their validation.
  """

  normalised: np.ndarray
  forgetting: np.ndarray
  seconds: np.ndarray


def merge_bench(
  merged: Any,
  experts: Any,
  *,
  general: Any = None,
  base: Any = None,
  merge_seconds: Any = (),
  validation_seconds: Any = (),
  lower_is_better: bool = False,
) -> MergeBench:
  r"""Computes the statistics of MergeBench.

  .. math:: \mathrm{normalised} = \frac1K \sum_k \frac{s_k}{e_k}, \qquad
    \mathrm{forgetting} = 1 - \frac1G \sum_g \frac{s_g}{b_g}

  with the inverse ratios where lower scores are better. The formula of
  forgetting is a reconstruction: general tasks relative to the base.

  Args:
    merged: s, scores of merges on the K tasks, ``[..., K]``.
    experts: e, the score of each task's own expert on it, ``[..., K]``, > 0.
    general: scores of the merges on G general tasks, ``[..., G]``, or None.
    base: b, scores of the base on the general tasks, ``[..., G]``, > 0.
    merge_seconds: of each merge of the search over hyperparameters,
      ``[..., C]``.
    validation_seconds: of the evaluation of each, ``[..., C]``.
    lower_is_better: whether scores are losses.

  Returns:
    The statistics; experts on their own tasks have ``normalised`` 1.

  Raises:
    ValueError: if a denominator is not positive, or one of ``general`` and
      ``base`` is missing.

  Example:
    >>> found = merge_bench([0.8, 0.4], [0.8, 0.8], general=[0.3], base=[0.4],
    ...                     merge_seconds=[1, 2], validation_seconds=[5, 5])
    >>> [round(float(x), 2) for x in found]
    [0.75, 0.25, 13.0]

  Reference:
    He et al., "MergeBench: A Benchmark for Merging Domain-Specialized LLMs",
    2025, arXiv:2505.10833.
  """
  if (general is None) != (base is None):
    raise ValueError('merge_bench: give general and base, or neither')
  relative = functools.partial(
    _tables.relative, 'merge_bench', lower_is_better=lower_is_better
  )
  normalised = relative(merged, experts, 'experts').mean(-1)
  forgetting = np.full(normalised.shape, np.nan)
  if general is not None:
    forgetting = 1 - relative(general, base, 'base').mean(-1)
  seconds = np.add(
    np.asarray(merge_seconds, np.float64).sum(-1),
    np.asarray(validation_seconds, np.float64).sum(-1),
  )
  return MergeBench(normalised, forgetting, seconds)
