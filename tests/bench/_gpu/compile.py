"""The time to trace and compile merges of 60 leaves, T = 8."""

import time

import jax
import jax.numpy as jnp

from tests.bench._gpu import report, speed


def run(lines: report.Report, limit: float) -> None:
  end = time.monotonic() + 0.9 * limit
  side, leaves = (32, 2) if lines.small else (2048, speed.LEAVES)
  stack = jax.ShapeDtypeStruct((speed.T, side, side), jnp.float32)
  deltas = {f'block_{i}/kernel': stack for i in range(leaves)}
  methods = speed.compiled()
  for name in list(methods)[: 2 if lines.small else None]:
    if time.monotonic() > end:
      lines.line(name, 'not run: no time left')
      continue
    start = time.perf_counter()
    lowered = jax.jit(methods[name]).lower(deltas, None)
    traced = time.perf_counter() - start
    lowered.compile()
    took = time.perf_counter() - start
    note = f'  of which tracing {traced:.1f} s'
    lines.line(name, took, 's', at_most=speed.COMPILE_S, note=note)
