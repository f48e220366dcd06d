"""Models of billions of parameters on a pod, on paper and as its compiler sees.

The rates are those of a data sheet, so that times are lower bounds.
"""

import os
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments._run import console
from experiments._scale_study import compiled, costs, formulas, operations

GB = 1e9


def on_paper(
  config: ml_collections.ConfigDict, names: Any
) -> list[dict[str, Any]]:
  """Predicts every operation for each model on one chip and on the pod.

  Args:
    config: ``config.pod`` of the study.
    names: of the operations.

  Returns:
    For each operation and model the seconds, what bounds them, gigabytes on a
    chip on one chip and on the pod, and whether they fit.
  """
  rates = _rates(config)
  rows = []
  for label, model in _sizes(config):
    for name in names:
      row: dict[str, Any] = {'operation': name, 'model': label}
      for place, devices in (('chip', 1), ('pod', config.chips)):
        cost = formulas.executed(name, size_of(config, model, devices))
        peak = cost.peak / GB
        row[place] = {
          'seconds': costs.seconds(cost, rates),
          'bound': costs.bound(cost, rates),
          'gigabytes': peak,
          'fits': bool(peak < config.gigabytes),
        }
      rows.append(row)
  return rows


def compile_all(
  config: ml_collections.ConfigDict, names: Any
) -> list[dict[str, Any]]:
  """Compiles operations for the pod, without one, and counts.

  It needs the package ``libtpu``, whose compiler runs on any machine.

  Args:
    config: ``config.pod``; so many leaves of the largest model are compiled.
    names: of the operations.

  Returns:
    For each operation the bytes by formula and as counted, in shares of one
    model on one chip.

  Raises:
    ValueError: if there is no such compiler.
  """
  m = _mesh(config)
  _, model = _sizes(config)[-1]
  size = size_of(config, model, config.chips)
  size = size._replace(leaves=config.compiled_leaves)
  share = size.parameters * size.itemsize / size.devices
  rows = []
  with console.progress('compiled', len(names)) as tick:
    for name in names:
      program = operations.compile_for(name, size, m)
      found = compiled.counts(program, size.devices)
      wanted = formulas.executed(name, size)
      row: dict[str, Any] = {'operation': name}
      for label, cost in (('formula', wanted), ('compiled', found)):
        row[label] = {
          'arguments': cost.arguments / share,
          'results': cost.results / share,
          'temporaries': cost.temporaries / share,
          'sent': cost.link / share,
        }
      rows.append(row)
      tick(name)
  return rows


def size_of(
  config: ml_collections.ConfigDict,
  model: ml_collections.ConfigDict,
  devices: int,
) -> costs.Size:
  """Returns a model of billions of parameters as equal square leaves."""
  leaves = round(model.parameters / model.side**2)
  return costs.Size(
    side=model.side,
    leaves=leaves,
    models=config.models,
    devices=devices,
    itemsize=2,
    rows=config.rows,
    cpu=False,
  )


def _sizes(config: ml_collections.ConfigDict) -> list[tuple[str, Any]]:
  """Returns the names and sizes of the models, the smallest first."""
  return sorted(config.sizes.items(), key=lambda x: x[1].parameters)


def _rates(config: ml_collections.ConfigDict) -> costs.Machine:
  """Returns the rates of one chip of the data sheet."""
  return costs.Machine(
    **{name: float(config.rates[name]) for name in costs.Machine._fields}
  )


def _mesh(config: ml_collections.ConfigDict) -> jax.sharding.Mesh:
  """Returns a mesh of the chips of a pod that is not there."""
  from jax.experimental import topologies

  # The compiler would ask a server for the machine that it runs on.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', config.kind)
  try:
    topology = topologies.get_topology_desc(
      platform='tpu', topology_name=config.topology
    )
  except Exception as error:
    reason = str(error).splitlines()[0]
    raise ValueError(
      f'pod.compiled={tuple(config.compiled)}: no compiler for '
      f'{config.topology} ({reason[:80]}): pip install libtpu, or leave it ()'
    ) from None
  automatic = (jax.sharding.AxisType.Auto,)
  return jax.sharding.Mesh(np.asarray(topology.devices), 'model', automatic)
