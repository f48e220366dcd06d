"""The handwritten digits that come with scikit-learn."""

import numpy as np

from wsl.data import _split


def digits() -> _split.Task:
  """Returns 1797 handwritten digits of 8x8 pixels, with nothing to download.

  The split is fixed: every fourth image is a test image.

  Returns:
    1348 training and 449 test images; ``x`` is ``[N, 8, 8]``, float32 in
    0 .. 1, ``y`` is ``[N]`` in 0 .. 9.

  Raises:
    ModuleNotFoundError: if scikit-learn is missing; it comes with the extra
      ``[experiments]``.

  Example:
    >>> task = digits()
    >>> task.train.x.shape, task.test.x.shape
    ((1348, 8, 8), (449, 8, 8))

  Reference:
    Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI
    Machine Learning Repository, 1998.
  """
  from sklearn import datasets

  stored = datasets.load_digits()
  x = np.asarray(stored.images / 16, np.float32)
  y = np.asarray(stored.target, np.int32)
  test = np.arange(len(x)) % 4 == 3
  return _split.Task(
    _split.Split(x[~test], y[~test]), _split.Split(x[test], y[test])
  )
