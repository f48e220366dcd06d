"""Every operation on the device against the same on the CPU.

Products of float32 that are multiplied in TF32 differ by 1e-3. Equal to
rounding are 1e-5 in float32, times the condition of a few operations.
"""

import time
from typing import Any
from unittest import mock

import jax
import numpy as np

from tests import operations
from tests.bench._gpu import report
from tests.operations import inputs

AT_MOST = {'float32': 1e-5, 'float64': 1e-12}
# Operations that amplify rounding: relative to the bound above. Factors, whose
# signs are arbitrary, are compared as products.
CONDITION = {
  'train.advance, lbfgs': 1e3,  # a line search
  'merge.tsv, differentiated': 1e2,  # inverse gaps of singular values
  'merge.knots': 1e1,  # inverse gaps again
  'stats.cca': 1e1,
  'stats.rbf_cka': 1e1,
}


def run(lines: report.Report, limit: float) -> None:
  end = time.monotonic() + 0.9 * limit
  rooms = ('aligning',) if lines.small else tuple(operations.ROOMS)
  dtypes = ('float32',) if lines.small else ('float32', 'float64')
  most = 8 if lines.small else None
  cpu, device = jax.devices('cpu')[0], jax.devices()[0]
  # Functions of users may multiply as they like: here at the highest precision.
  with mock.patch.object(inputs, 'MARK', 'highest'), jax.enable_x64(True):
    for dtype in dtypes:
      for room in rooms:
        table = operations.room(room, dtype)
        for name, (fn, args) in list(table.items())[:most]:
          if time.monotonic() > end:
            lines.line(f'{name}, {dtype}', 'not run: no time left')
            continue
          here, there = (_compute(fn, args, where) for where in (device, cpu))
          gap = report.difference(here, there)
          bound = AT_MOST[dtype] * CONDITION.get(name, 1)
          lines.line(f'{name}, {dtype}', gap, at_most=bound)


def _compute(fn: Any, args: Any, device: jax.Device) -> Any:
  place = lambda x: jax.device_put(x, device) if hasattr(x, 'dtype') else x
  with jax.default_device(device):
    result = jax.jit(fn)(*jax.tree.map(place, args))
    return jax.tree.map(
      lambda x: x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
      else np.asarray(x), result,
    )  # fmt: skip
