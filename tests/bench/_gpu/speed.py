"""Merges of T = 8 task vectors, against the time to read them once.

The floor of a method is the time to read its operands once and to write its
result once, at the rate at which the device copies an array.
"""

from collections.abc import Callable
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from tests.bench._gpu import report
from wsl import merge

T, LEAVES = 8, 60
# At most so many times the floor: inside jit, and called eagerly.
EXPECTED = {
  'mean': (1.3, None),
  'sum': (1.3, None),
  'mean_nonzero': (1.3, None),
  'consensus': (1.3, None),
  'fisher': (1.5, None),
  'ties global': (6.0, 10.0),
  'ties leaf': (10.0, None),
  'dare + sum': (6.0, None),
  'breadcrumbs + sum': (None, None),
}
COMPILE_S = 5.0


def run(lines: report.Report, limit: float) -> None:
  del limit
  side, leaves = (32, 2) if lines.small else (_side(), LEAVES)
  deltas = _stack(side, leaves)
  stack = sum(x.nbytes for x in jax.tree.leaves(deltas))
  rate = _copy_rate(2**20 if lines.small else min(2**30, stack))
  lines.line('task vectors', stack / 1e9, 'GB', note=f'  {leaves} leaves')
  lines.line('copy rate', rate / 1e12, 'TB/s')
  measured = methods()
  if lines.small:
    measured = {name: measured[name] for name in ('fisher', 'ties leaf')}
  for name, fn in measured.items():
    fishers = jax.tree.map(jnp.square, deltas) if name == 'fisher' else None
    operands = (deltas, fishers)
    read = sum(x.nbytes for x in jax.tree.leaves(operands))
    _measure(lines, name, fn, operands, (read + stack / T) / rate, stack)
    del fishers, operands


def _measure(
  lines: report.Report,
  name: str,
  fn: Callable[..., Any],
  operands: tuple[Any, Any],
  floor: float,
  stack: int,
) -> None:
  """Times one method jitted and eagerly, and its compilation."""
  jitted, eager = EXPECTED[name]
  start = time.perf_counter()
  program = jax.jit(fn).lower(*operands).compile()
  took = time.perf_counter() - start
  temporary = program.memory_analysis().temp_size_in_bytes / stack
  _, median = report.seconds(lambda: program(*operands))
  note = f'  {1e3 * median:.2f} ms, temporaries {temporary:.2f} stacks'
  lines.line(f'{name}, jitted', median / floor, 'x', at_most=jitted, note=note)
  lines.line(f'{name}, compilation', took, 's', at_most=COMPILE_S)
  first, median = report.seconds(lambda: fn(*operands))
  note = f'  {1e3 * median:.2f} ms, first call {first:.1f} s'
  lines.line(f'{name}, eager', median / floor, 'x', at_most=eager, note=note)


def methods() -> dict[str, Callable[..., Any]]:
  """Returns functions of task vectors and of their Fisher diagonals."""
  key = jax.random.key(1)
  band = functools.partial(merge.breadcrumbs, density=0.19, outliers=0.01)
  return {
    'mean': lambda d, _: merge.mean(d),
    'sum': lambda d, _: merge.sum(d),
    'mean_nonzero': lambda d, _: merge.mean_nonzero(d),
    'consensus': lambda d, _: merge.consensus(d, threshold=0.4, min_tasks=2),
    'fisher': lambda d, f: merge.fisher(d, fishers=f),
    'ties global': lambda d, _: merge.ties(d, density=0.2),
    'ties leaf': lambda d, _: merge.ties(d, density=0.2, scope='leaf'),
    'dare + sum': lambda d, _: merge.sum(merge.dare(d, rate=0.9, key=key)),
    'breadcrumbs + sum': lambda d, _: merge.sum(band(d)),
  }


def compiled() -> dict[str, Callable[..., Any]]:
  """Returns further functions as ``methods``, which are compiled only."""
  key, weights = jax.random.key(1), jnp.arange(1.0, 1.0 + T)
  model = lambda d, t: jax.tree.map(lambda x: x[t], d)
  models = lambda d: [model(d, t) for t in range(T)]
  drop = functools.partial(merge.dare, rate=0.9, key=key)
  shrink = functools.partial(merge.della, density=0.5, epsilon=0.1, key=key)
  return {
    'ties leaf, weights': lambda d, _: merge.ties(
      d, density=0.2, scope='leaf', weights=weights
    ),
    'dare + ties': lambda d, _: merge.ties(drop(d), density=0.2),
    'della': lambda d, _: shrink(d),
    'trim + rescale': lambda d, _: merge.rescale(
      merge.trim(d, density=0.2, scope='leaf'), d
    ),
    'tall_masks': lambda d, _: merge.tall_masks(d, threshold=0.4),
    'emr': lambda d, _: merge.emr(d),
    'magmax': lambda d, _: merge.magmax(d),
    'pcb': lambda d, _: merge.pcb(d, density=0.1),
    'ram': lambda d, _: merge.ram(d),
    'ram_plus': lambda d, _: merge.ram_plus(d),
    'sce': lambda d, _: merge.sce(d, select=0.5),
    'model_stock': lambda d, _: merge.model_stock(d),
    'variance_corrected': lambda d, _: merge.variance_corrected(d),
    'slerp': lambda d, _: merge.slerp(model(d, 0), model(d, 1), t=0.3),
    'nuslerp': lambda d, _: merge.nuslerp(model(d, 0), model(d, 1), t=0.3),
    'nearswap': lambda d, _: merge.nearswap(model(d, 0), model(d, 1), t=0.3),
    'arcee_fusion': lambda d, _: merge.arcee_fusion(model(d, 0), model(d, 1)),
    'multislerp': lambda d, _: merge.multislerp(models(d), weights=weights),
    'karcher': lambda d, _: merge.karcher(models(d)),
  }


def _side() -> int:
  """Returns the side of the leaves: 8 GB in all if the memory allows it."""
  stats = jax.devices()[0].memory_stats() or {}
  most = stats.get('bytes_limit', 2**33) / 6  # operands, copies, temporaries
  fits = lambda side: 4 * T * LEAVES * side**2 <= most
  return next(side for side in (2048, 1024, 512, 256, 128) if fits(side))


def _stack(side: int, leaves: int) -> Any:
  """Returns heavy-tailed task vectors whose scale differs between leaves."""
  draw = jax.jit(
    lambda key, i: jax.random.normal(key, (T, side, side)) ** 3 * (1 + i % 3)
  )
  keys = jax.random.split(jax.random.key(0), leaves)
  deltas = {f'block_{i}/kernel': draw(keys[i], i) for i in range(leaves)}
  return jax.block_until_ready(deltas)


def _copy_rate(size: int) -> float:
  """Returns the bytes that are read and written in a second by a copy."""
  x = jnp.ones(size // 4, jnp.float32)
  copy = jax.jit(lambda x: x * 2)
  _, median = report.seconds(lambda: copy(x), rounds=20)
  return 2 * x.nbytes / median
