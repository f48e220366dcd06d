"""The dtypes of leaves in a file."""

import ml_dtypes
import numpy as np

FLOATS = [
  np.float16,
  np.float32,
  np.float64,
  np.complex64,
  ml_dtypes.bfloat16,
  ml_dtypes.float8_e4m3fn,
  ml_dtypes.float8_e5m2,
  ml_dtypes.float8_e4m3fnuz,
  ml_dtypes.float8_e5m2fnuz,
]
INTEGERS = [
  np.bool_,
  np.uint8,
  np.int8,
  np.uint16,
  np.int16,
  np.uint32,
  np.int32,
  np.uint64,
  np.int64,
]
EXPONENTS = [ml_dtypes.float8_e8m0fnu]  # without zero and infinity
ALL = INTEGERS + FLOATS + EXPONENTS
