"""What a classification task holds."""

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
  """A task: what to learn from, and what to be judged by."""

  train: Split
  test: Split
