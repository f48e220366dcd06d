"""Weights of groups, for the choice of widths, from measured accuracies."""

from collections.abc import Mapping

from wsl import tree


def width_weights(
  separate: Mapping[str, float],
  merged: Mapping[str, float],
  *,
  all_merged: float,
  all_separate: float,
  budget: float,
) -> dict[str, float]:
  r"""Returns weights of groups from measured accuracies.

  .. math:: w_g = (2 - \text{budget})\,(R^1_g - R_{merged})
    - (\text{budget} - 1)\,(R^0_g - R_{separate})

  At small budgets the weight is the gain from keeping only this group separate,
  at large budgets the loss from merging only this group.

  Args:
    separate: R^1, by group: the accuracy of ``pleas`` with only this group
      separate, ``separate={group: 1.0}``.
    merged: R^0, by group: the accuracy with only this group merged.
    all_merged: the accuracy with every group merged.
    all_separate: the accuracy with every group separate.
    budget: the budget of ``widths``, 1 .. 2.

  Returns:
    A weight for each group.

  Raises:
    ValueError: if the groups differ, or the budget is out of range.

  Example:
    >>> weights = width_weights({'g': 0.75}, {'g': 0.5}, all_merged=0.5,
    ...                         all_separate=1.0, budget=1.5)
    >>> weights
    {'g': 0.375}

  Reference: the official code of Nasery et al., "PLeaS: Merging Models with
  Permutations and Least Squares", 2024, arXiv:2407.02447.
  """
  tree.check_scalars(
    'width_weights',
    all_merged=all_merged,
    all_separate=all_separate,
    budget=budget,
  )
  if not 1 <= budget <= 2:
    raise ValueError(f'width_weights: budget={budget}, expected 1 .. 2')
  for name in {*separate} ^ {*merged}:
    raise ValueError(f"width_weights: group '{name}' is in one mapping only")
  return {
    name: (2 - budget) * (separate[name] - all_merged)
    - (budget - 1) * (merged[name] - all_separate)
    for name in separate
  }
