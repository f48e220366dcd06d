"""Finite checks of long arrays, by sums of squares or by bits."""

import ml_dtypes
import numpy as np
import pytest

from wsl import tree

LENGTHS = [8192, 8193, 3 * 8192 - 1, 300_001]
DTYPES = [
  np.float16,
  np.float32,
  np.float64,
  np.complex64,
  np.complex128,
  ml_dtypes.bfloat16,
]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('length', LENGTHS)
def test_one_bad_value_is_found_anywhere(dtype, length):
  x = np.random.default_rng(0).normal(size=length).astype(dtype)
  assert tree.all_finite(x)
  places = [0, 1, 8191, 8192, length // 2, length - 1]
  for at in (i for i in places if i < length):
    for bad in (np.nan, np.inf, -np.inf):
      y = x.copy()
      y[at] = bad
      assert not tree.all_finite(y), (at, bad)
      assert not tree.all_finite(y[::-1])


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.complex64])
@pytest.mark.filterwarnings('error')
def test_squares_may_overflow(dtype):
  real = np.empty(0, dtype).real.dtype
  top = np.finfo(real).max
  x = np.full(20_000, top, dtype)
  x[::2] = -top
  assert tree.all_finite(x)
  x[19_999] = np.inf
  assert not tree.all_finite(x)
  small = np.full(20_000, np.finfo(real).smallest_subnormal, dtype)
  assert tree.all_finite(small)


def test_arrays_of_several_axes_and_views():
  x = np.ones((300, 400), np.float32)
  assert tree.all_finite(x.T)
  assert tree.all_finite(x[::2, ::3])
  x[299, 399] = np.nan
  assert not tree.all_finite(x.T)
  assert tree.all_finite(x[:299])
