"""The embedded digits."""

import numpy as np

from wsl import data


def test_digits_are_complete_and_balanced():
  task = data.digits()
  assert task.train.x.dtype == np.float32
  assert task.train.y.dtype == np.int32
  assert len(task.train.y) + len(task.test.y) == 1797
  values = np.concatenate([task.train.x, task.test.x])
  assert values.min() == 0
  assert values.max() == 1
  for split in task:
    counts = np.bincount(split.y)
    assert len(counts) == 10
    assert counts.min() > 0.8 * counts.mean()


def test_the_split_is_fixed():
  task = data.digits()
  assert task.train.y[:6].tolist() == [0, 1, 2, 4, 5, 6]
  assert task.test.y[:3].tolist() == [3, 7, 1]
