"""Arrays with labelled axes, for the gains of nested groups."""

from typing import NamedTuple

import numpy as np

from wsl.align._match import block_pairs


class LabelledArray(NamedTuple):
  """An array and a label for each axis.

  A group g has up to two axes: ``g`` is its index in the fixed model, ``g'``
  its index in the moving model.
  """

  array: np.ndarray
  labels: block_pairs.Names


def old_index(group: str) -> str:
  """Returns the label of a group's index in the moving model."""
  return group + "'"


def table_labels(
  table: np.ndarray, names: block_pairs.Names
) -> block_pairs.Names:
  """Returns the labels of a group's table: indices, or matrices."""
  matrix = block_pairs.is_matrix(table)
  return (*names, old_index(names[-1])) if matrix else names


def table(array: np.ndarray, names: block_pairs.Names) -> LabelledArray:
  """Returns a group's table, the last of ``names``, with labels."""
  return LabelledArray(array, table_labels(array, names))


def unmatched_groups(
  gram: LabelledArray, batch: block_pairs.Names
) -> list[str]:
  """Lists the groups that have both indices in a gram and are not in batch."""
  labels = gram.labels
  return [g for g in labels if old_index(g) in labels and g not in batch]


def take_matched(
  x: LabelledArray, group: str, table: LabelledArray
) -> LabelledArray:
  """Replaces a group's old index by a table: ``x[.., g, table[g]]``.

  With matrices it is the sum over g' of x[.., g, g'] table[.., g, g'].
  """
  # The table has axes of outer groups too. Its axes are matched to those of x
  # by label, and it is broadcast over all other axes.
  axis = x.labels.index(old_index(group))
  order = [label for label in x.labels if label in table.labels]
  index = sum_to(table, tuple(order))
  missing = [i for i, n in enumerate(x.labels) if n not in table.labels]
  index = np.expand_dims(index, missing)
  if block_pairs.is_matrix(index):
    array = (x.array * index).sum(axis)
  else:
    array = np.take_along_axis(x.array, index, axis).squeeze(axis)
  return LabelledArray(array, (*x.labels[:axis], *x.labels[axis + 1 :]))


def take_all_matched(
  gram: LabelledArray, groups: list[str], tables: dict[str, LabelledArray]
) -> LabelledArray:
  """Replaces the old indices of groups by tables; the identity by default."""
  for group in groups:
    size = gram.array.shape[gram.labels.index(group)]
    identity = LabelledArray(np.arange(size), (group,))
    gram = take_matched(gram, group, tables.get(group, identity))
  return gram


def sum_to(x: LabelledArray, labels: block_pairs.Names) -> np.ndarray:
  """Transposes the axes to ``labels``; sums over all other axes."""
  axes = tuple(i for i, n in enumerate(x.labels) if n not in labels)
  remaining = [n for n in x.labels if n in labels]
  array = x.array.sum(axes) if axes else x.array
  return array.transpose([remaining.index(n) for n in labels])
