"""The arrays of a classification task."""

from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
  """Examples and their labels.

  Attributes:
    x: inputs, ``[N, ...]``, as they are stored.
    y: labels 0, 1, ..., ``[N]``, int32.
  """

  x: np.ndarray
  y: np.ndarray


class Task(NamedTuple):
  """A classification task: its training and test examples."""

  train: Split
  test: Split
