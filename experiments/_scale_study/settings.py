"""The config of the study: checks, sizes and devices."""

from typing import NamedTuple

import jax
import ml_collections

from experiments._run import checks
from experiments._scale_study import costs, operations


class Setting(NamedTuple):
  """Config and devices of a run.

  Attributes:
    config: of the run.
    devices: the numbers of devices, those of the config that there are.
  """

  config: ml_collections.ConfigDict
  devices: tuple[int, ...]

  def size(self, leaves: int, devices: int) -> costs.Size:
    """Returns a model of so many leaves on so many devices."""
    config = self.config
    return costs.Size(
      side=config.side,
      leaves=leaves,
      models=config.models,
      devices=devices,
      rows=config.rows,
      cpu=jax.default_backend() == 'cpu',
    )

  def leaves(self, devices: int) -> tuple[int, ...]:
    """Returns the numbers of leaves that are measured on so many devices."""
    every = tuple(self.config.leaves)
    return every if devices == self.devices[0] else every[-1:]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Checks the config; see ``experiment.Run`` for errors."""
  checks.choices('operations', config.operations, operations.OPERATIONS)
  checks.choices('disk.methods', config.disk.methods, ('sum', 'ties'))
  checks.sizes(
    {
      'side': (config.side, 8, None),
      'leaves': (tuple(config.leaves), 1, None),
      'models': (config.models, 2, None),
      'devices': (tuple(config.devices), 1, None),
      'rows': (config.rows, 1, None),
      'repeats': (config.repeats, 1, None),
    }
  )
  there = jax.device_count()
  found = tuple(d for d in sorted(config.devices) if d <= there)
  if not found:
    raise ValueError(
      f'devices={tuple(config.devices)}: there are {there}: add 1, or set '
      'XLA_FLAGS=--xla_force_host_platform_device_count='
      f'{min(config.devices)}'
    )
  for d in found:
    if config.side % d:
      raise ValueError(
        f'side={config.side}: not divisible by devices={d}: take a multiple'
      )
  return Setting(config, found)


def describe(setting: Setting) -> str:
  """Returns sizes and devices in one line."""
  config = setting.config
  left = [d for d in config.devices if d not in setting.devices]
  entries = [n * config.side**2 / 1e6 for n in config.leaves]
  text = (
    f'{len(config.operations)} operations on {jax.devices()[0].device_kind}, '
    f'{", ".join(map(str, setting.devices))} devices; T={config.models}; '
    f'{", ".join(f"{n:.3g}" for n in entries)} M parameters'
  )
  return f'{text}; not there: {left} devices' if left else text
