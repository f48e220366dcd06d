"""Distances in ulps equal counts of steps between representable numbers."""

from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from wsl import stats

SMALL = (
  *('bfloat16', 'float8_e4m3fn', 'float8_e5m2', 'float8_e4m3fnuz'),
  *('float8_e5m2fnuz', 'float8_e4m3', 'float8_e3m4', 'float8_e8m0fnu'),
  *('float4_e2m1fn', 'float6_e3m2fn'),
)


def numbers(dtype: Any) -> np.ndarray:
  """All numbers of a dtype of up to 16 bits, in order, without NaN and -0."""
  width = ml_dtypes.finfo(dtype).bits
  unsigned = np.uint8 if width <= 8 else np.uint16
  every = np.arange(2**width, dtype=unsigned).view(dtype)
  with np.errstate(invalid='ignore'):
    every = every[~np.isnan(every)]
  values = every.astype(np.float64)
  _, first = np.unique(values, return_index=True)
  return every[first]


@pytest.mark.parametrize('name', ['float16', *SMALL])
def test_all_numbers_of_small_dtypes_are_counted(name: str) -> None:
  dtype = np.dtype(name) if name == 'float16' else getattr(ml_dtypes, name)
  every = numbers(dtype)
  assert (stats.ulps(every[1:], every[:-1]) == 1).all()
  rng = np.random.default_rng(0)
  i, j = rng.integers(len(every), size=(2, 500))
  np.testing.assert_array_equal(stats.ulps(every[i], every[j]), np.abs(i - j))


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_steps_of_nextafter(dtype: Any) -> None:
  info = np.finfo(dtype)
  starts = [0.0, -0.0, 1.0, -1.0, info.max, -info.max, info.smallest_subnormal]
  starts += [-info.smallest_subnormal, info.tiny, 3.1415, -2e-3]
  x = np.asarray(starts, dtype)
  up = down = x
  with np.errstate(over='ignore', under='ignore'):
    for step in range(4):
      np.testing.assert_array_equal(stats.ulps(x, up), _steps(x, step, 1))
      np.testing.assert_array_equal(stats.ulps(down, x), _steps(x, step, -1))
      up = np.nextafter(up, dtype(np.inf))
      down = np.nextafter(down, dtype(-np.inf))


def _steps(x: np.ndarray, step: int, sign: int) -> np.ndarray:
  """Infinity is one step from the largest number, and the last."""
  largest = x == sign * np.finfo(x.dtype).max
  return np.where(largest, min(step, 1), step)


def test_extremes() -> None:
  top = np.finfo(np.float64).max
  inf = stats.ulps(np.float64(-np.inf), np.float64(np.inf))
  assert int(inf) == 2 * int(np.float64(np.inf).view(np.uint64))
  assert int(stats.ulps(-top, top)) == int(inf) - 2
  assert int(stats.ulps(np.float32(0.0), np.float32(-0.0))) == 0
  nan, other = np.uint32([0x7FC00000, 0xFFC00001]).view(np.float32)
  assert int(stats.ulps(nan, other)) == 0
  assert int(stats.ulps(nan, np.float32(1))) == 2**64 - 1


@pytest.mark.parametrize(
  ('dtype', 'pairs'),
  [
    ('int64', [(-(2**63), 2**63 - 1), (3, -4), (-7, -7)]),
    ('uint64', [(2**64 - 1, 0), (5, 9), (1, 1)]),
    ('int8', [(-128, 127), (0, -1), (4, 4)]),
    ('bool', [(True, False), (True, True), (False, True)]),
    ('int4', [(-8, 7), (0, -1), (3, 3)]),
  ],
)
def test_integers_and_bools(dtype: str, pairs: list[tuple[int, int]]) -> None:
  kind = ml_dtypes.int4 if dtype == 'int4' else np.dtype(dtype)
  x, y = (np.asarray(z, kind) for z in zip(*pairs))
  wanted = [abs(int(a) - int(b)) for a, b in pairs]
  assert stats.ulps(x, y).tolist() == wanted


def test_complex_numbers_and_arrays_of_jax() -> None:
  x = np.asarray([1 + 1j, 2 - 3j], np.complex64)
  y = x.copy()
  y.imag[0] = np.nextafter(np.nextafter(np.float32(1), 2), 2)
  assert stats.ulps(x, y).tolist() == [2, 0]
  assert stats.ulps(jnp.zeros((2, 0)), jnp.ones((2, 0))).shape == (2, 0)


@pytest.mark.parametrize(
  ('x', 'y'),
  [
    (np.zeros(2), np.zeros(3)),
    (np.zeros(2, np.float32), np.zeros(2)),
    (np.asarray(['a']), np.asarray(['b'])),
    (np.zeros(2, np.longdouble), np.zeros(2, np.longdouble)),
  ],
)
def test_mistakes(x: np.ndarray, y: np.ndarray) -> None:
  with pytest.raises(ValueError, match=r'^ulps: .*: give '):
    stats.ulps(x, y)
