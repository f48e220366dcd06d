"""Programs on a mesh: their counts, and their times beside those of probes."""

import functools
from typing import Any

import jax

from experiments._run import console
from experiments._scale_study import (
  compiled,
  costs,
  formulas,
  machine,
  operations,
  settings,
)
from wsl import mesh


def on(setting: settings.Setting, devices: int) -> dict[str, Any]:
  """Counts and times all operations on a number of devices.

  Args:
    setting: config and devices.
    devices: D; the first D of those there are.

  Returns:
    ``machine``, the rates of one device; ``rows``, for each operation and size
    the cost by its formula (``executed`` and ``expected``, what the text of the
    program shows), as counted, and ``seconds`` measured and ``predicted``: None
    if D exceeds ``config.timed``, or the formula predicts more than
    ``config.longest``.
  """
  config = setting.config
  m = mesh.make(devices, 'model', devices=jax.devices()[:devices])
  timed = devices <= config.timed
  probes = {}
  if timed:
    probes = machine.probes(
      m, entries=config.probe.entries, side=config.probe.side
    )
  calls: dict[Any, Any] = {
    ('probe', name): probe.call for name, probe in probes.items()
  }
  # Rates from the probes alone tell which operations take too long.
  rough = _rates(probes, machine.fastest(calls, 2)) if timed else None
  rows = []
  sizes = setting.leaves(devices)
  total = len(sizes) * len(config.operations)
  with console.progress(f'{devices} devices', total) as tick:
    for leaves in sizes:
      size = setting.size(leaves, devices)
      drawn: dict[str, Any] = {}
      for name in config.operations:
        row, call = _operation(name, size, m, drawn, rough, config.longest)
        rows.append(row)
        if call is not None:
          calls[name, leaves] = call
        tick(f'{name}, {leaves} leaves')
  times = machine.fastest(calls, config.repeats)
  rates = _rates(probes, times) if timed else None
  for row in rows:
    size = setting.size(row['leaves'], devices)
    row['seconds'] = times.get((row['operation'], row['leaves']))
    cost = formulas.executed(row['operation'], size)
    row['predicted'] = costs.seconds(cost, rates) if rates else None
    row['bound'] = costs.bound(cost, rates) if rates else None
  return {'machine': rates._asdict() if rates else None, 'rows': rows}


def _operation(
  name: str,
  size: costs.Size,
  m: jax.sharding.Mesh,
  drawn: dict[str, Any],
  rough: costs.Machine | None,
  longest: float,
) -> tuple[dict[str, Any], Any]:
  """Returns the counts of an operation, and a call unless it is too long."""
  program = operations.compile_for(name, size, m)
  executed = formulas.executed(name, size)
  row = {
    'operation': name,
    'devices': size.devices,
    'leaves': size.leaves,
    'parameters': size.parameters,
    'executed': executed._asdict(),
    'expected': formulas.counted(name, size)._asdict(),
    'counted': compiled.counts(program, size.devices)._asdict(),
  }
  if rough is None or costs.seconds(executed, rough) > longest:
    return row, None
  names = operations.OPERATIONS[name].operands
  for operand in names:
    if operand not in drawn:
      drawn[operand] = operations.draw(operand, size, m)
  return row, functools.partial(program, *[drawn[x] for x in names])


def _rates(
  probes: dict[str, machine.Probe], times: dict[Any, float]
) -> costs.Machine:
  """Returns the rates from the times of probes among others."""
  return machine.from_times(
    probes, {name: times['probe', name] for name in probes}
  )
