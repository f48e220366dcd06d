"""Independent Gaussian processes of several losses, by scikit-learn."""

from typing import Any, NamedTuple
import warnings

import numpy as np

from wsl.search import _points


class Processes(NamedTuple):
  """A Gaussian process for each of M losses of points in the unit cube.

  Attributes:
    regressors: of scikit-learn, for losses of mean 0 and deviation 1.
    mean: of the losses, ``[M]``.
    scale: their standard deviations, ``[M]``.
    low: the corner of the box that is the origin of the cube, ``[n]``.
    high: the opposite corner.
  """

  regressors: tuple[Any, ...]
  mean: np.ndarray
  scale: np.ndarray
  low: np.ndarray
  high: np.ndarray

  def __call__(self, points: Any) -> np.ndarray:
    """Returns the predicted losses of points of the box, ``[B, M]``."""
    points = np.asarray(points, np.float64)
    return predict(self, (points - self.low) / (self.high - self.low))[0]


def fit(
  cube: np.ndarray, losses: np.ndarray, low: np.ndarray, high: np.ndarray
) -> Processes:
  """Fits processes by maximum likelihood: Matérn 5/2, a scale for each axis.

  Args:
    cube: points in the unit cube, ``[K, n]``.
    losses: ``[K, M]``, finite.
    low: the corner of the box that is the origin of the cube, ``[n]``.
    high: the opposite corner.

  Returns:
    The processes, with the noise of the losses as a parameter.
  """
  kernels = _points.optional('sklearn.gaussian_process.kernels', 'mm_mo')
  mean, scale = losses.mean(0), losses.std(0)
  scale = np.where(scale > 0, scale, 1)
  axes = np.full(cube.shape[1], 0.5)
  kernel = kernels.ConstantKernel(1.0, (0.1, 10)) * kernels.Matern(
    axes, (0.05, 10), nu=2.5
  ) + kernels.WhiteKernel(0.01, (1e-6, 1))
  columns = ((losses - mean) / scale).T
  found = tuple(_regressor(kernel, cube, y, fitted=False) for y in columns)
  return Processes(found, mean, scale, low, high)


def predict(
  processes: Processes, cube: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns means and deviations of the losses without noise, ``[B, M]``."""
  means, variances = [], []
  for one in processes.regressors:
    mean, deviation = one.predict(cube, return_std=True)
    # The white part of the kernel is in the deviation; the loss itself varies
    # less than an observation of it.
    means.append(mean)
    variances.append(deviation**2 - one.kernel_.k2.noise_level)
  deviations = np.sqrt(np.maximum(np.stack(variances, 1), 1e-12))
  mean = processes.mean + processes.scale * np.stack(means, 1)
  return mean, processes.scale * deviations


def condition(processes: Processes, point: np.ndarray) -> Processes:
  """Adds a point of the cube, ``[n]``, with the predicted losses as observed.

  Means stay as they are, and deviations shrink around the point.
  """
  found = []
  for one in processes.regressors:
    x = np.concatenate([one.X_train_, point[None]])
    y = np.concatenate([one.y_train_, one.predict(point[None])])
    found.append(_regressor(one.kernel_, x, y, fitted=True))
  return processes._replace(regressors=tuple(found))


def _regressor(
  kernel: Any, x: np.ndarray, y: np.ndarray, *, fitted: bool
) -> Any:
  """Returns scikit-learn's regressor with a fitted kernel, or fits it."""
  library = _points.optional('sklearn.gaussian_process', 'mm_mo')
  regressor = library.GaussianProcessRegressor(
    kernel, optimizer=None if fitted else 'fmin_l_bfgs_b'
  )
  with warnings.catch_warnings():
    # A parameter at its bound is no failure: a loss may ignore a coordinate.
    warnings.simplefilter('ignore')
    return regressor.fit(x, y)
