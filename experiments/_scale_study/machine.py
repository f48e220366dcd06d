"""The rates of a machine: measured by small programs, or from a data sheet."""

from collections.abc import Callable, Mapping
import functools
import time
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from experiments._scale_study import costs

_CHAIN = 64  # multiplications, each with an addition


class Probe(NamedTuple):
  """A program that is bound by one resource, and how much of it it takes."""

  call: Callable[[], Any]
  amount: float


def probes(
  m: jax.sharding.Mesh, *, entries: int, side: int
) -> dict[str, Probe]:
  """Returns a program for each rate of ``costs.Machine``.

  Every device runs the same local program at the same time.

  Args:
    m: a mesh with one axis ``model``.
    entries: of the array that is copied, on all devices together; more than
      the caches hold.
    side: of the matrices that are multiplied and decomposed.
  """
  d = m.size
  local = functools.partial(
    jax.shard_map, mesh=m, in_specs=jax.P('model'), out_specs=jax.P('model')
  )

  def chain(x: Any) -> Any:
    # Not a loop: one kernel that reads and writes an entry once.
    for _ in range(_CHAIN):
      x = x * np.float32(0.999) + np.float32(0.001)
    return x

  reduce = lambda x: jax.lax.psum(x, 'model') / d
  shapes: dict[str, tuple[Callable[..., Any], tuple[int, ...], float]] = {
    'memory': (lambda x: x * 2, (entries,), 8 * entries / d),
    'operations': (chain, (entries // 4,), 2 * _CHAIN * (entries // 4) / d),
    'products': (_square, (d, side, side), 2 * side**3),
    'decompositions': (_factors, (d, side, side), side**3),
    'link': (reduce, (entries // 4,), _sent(entries // 4 // d, d)),
    'call': (lambda x: x + 1, (d,), 1),
    'exchange': (reduce, (d,), 1),
  }
  found = {}
  for name, (function, shape, amount) in shapes.items():
    where = jax.sharding.NamedSharding(m, jax.P('model'))
    fill = jax.jit(
      lambda shape=shape: jax.random.normal(
        jax.random.key(0), shape, np.float32
      ),
      out_shardings=where,
    )
    x = fill()
    run = jax.jit(local(function))
    found[name] = Probe(functools.partial(run.lower(x).compile(), x), amount)
  return found


def _square(x: Any) -> Any:
  """Multiplies matrices by themselves."""
  return jnp.matmul(x, x)


def _factors(x: Any) -> Any:
  """Returns the left singular vectors."""
  return jnp.linalg.svd(x, full_matrices=False)[0]


def _sent(entries: int, devices: int) -> float:
  """Bytes that a device sends in an all-reduce of float32."""
  return 2 * 4 * entries * (devices - 1) / devices


def fastest(
  programs: Mapping[Any, Callable[[], Any]], repeats: int
) -> dict[Any, float]:
  """Times programs in turn, and returns the least seconds of each.

  Other processes only add time, so that the least of several rounds is nearest
  to the time of the program alone. Processes of one run get those of the first,
  so that they agree on what takes too long.
  """
  best: dict[Any, float] = {}
  for repeat in range(repeats + 1):
    for name, call in programs.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      seconds = time.perf_counter() - start
      if repeat:  # the first call allocates
        best[name] = min(best.get(name, seconds), seconds)
  if jax.process_count() > 1:
    own = np.asarray([*best.values()], np.float32)
    agreed = multihost_utils.broadcast_one_to_all(own)
    best = dict(zip(best, np.asarray(agreed, np.float64).tolist()))
  return best


def from_times(
  found: Mapping[str, Probe], times: Mapping[str, float]
) -> costs.Machine:
  """Returns the rates of one device from the times of ``probes``."""
  call = times['call']
  rates = {
    name: probe.amount / max(times[name] - call, 1e-9)
    for name, probe in found.items()
    if name not in ('call', 'exchange')
  }
  alone = not found['link'].amount
  if alone:
    rates['link'] = float(np.finfo(np.float32).max)
  exchange = 0.0 if alone else max(times['exchange'] - call, 0.0)
  return costs.Machine(**rates, call=call, exchange=exchange)
