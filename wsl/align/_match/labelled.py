"""Arrays whose axes have labels, for gains of pairs within pairs."""

from typing import NamedTuple

import numpy as np

from wsl.align._match import weight_gains


class Labelled(NamedTuple):
  """An array and a label for each axis.

  The new index of a group g is called ``g``, the old one ``g'``.
  """

  array: np.ndarray
  labels: weight_gains.Names


def reduce(
  gram: Labelled, names: list[str], tables: dict[str, Labelled]
) -> Labelled:
  """Takes from the old indices of some groups what tables pair them with.

  A group without a table stays in its present order.
  """
  for name in names:
    size = gram.array.shape[gram.labels.index(name)]
    stay = Labelled(np.arange(size), (name,))
    gram = pick(gram, name, tables.get(name, stay))
  return gram


def pick(x: Labelled, name: str, table: Labelled) -> Labelled:
  """Takes from the old index of a group what a table pairs the new one with."""
  axis = x.labels.index(old(name))
  order = [label for label in x.labels if label in table.labels]
  index = arrange(table, tuple(order))
  missing = [i for i, n in enumerate(x.labels) if n not in table.labels]
  index = np.expand_dims(index, missing)
  array = np.take_along_axis(x.array, index, axis).squeeze(axis)
  return Labelled(array, (*x.labels[:axis], *x.labels[axis + 1 :]))


def arrange(x: Labelled, wanted: weight_gains.Names) -> np.ndarray:
  """Brings axes into an order; sums over those that are not wanted."""
  axes = tuple(i for i, n in enumerate(x.labels) if n not in wanted)
  labels = [n for n in x.labels if n in wanted]
  array = x.array.sum(axes) if axes else x.array
  return array.transpose([labels.index(n) for n in wanted])


def pairs(gram: Labelled, lead: weight_gains.Names) -> list[str]:
  """Names the groups of a gram that have two indices and are not leading."""
  return [n for n in gram.labels if old(n) in gram.labels and n not in lead]


def old(name: str) -> str:
  """Returns the label of a group's old index."""
  return name + "'"
