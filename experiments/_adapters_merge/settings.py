"""Tasks, pools and merges of a run."""

from typing import Any, NamedTuple

import ml_collections
import numpy as np

from experiments._adapters_merge import problems
from experiments._run import checks
from wsl import tree


class Pool(NamedTuple):
  """How the LoRAs of a pool begin.

  Attributes:
    kind: how A is drawn, as in ``adapters.orthogonal_bases``.
    same: whether all tasks begin with the same A.
    frozen: whether A stays as it is drawn.
  """

  kind: str
  same: bool
  frozen: bool


POOLS = {
  'own': Pool('gaussian', same=False, frozen=False),
  'shared': Pool('gaussian', same=True, frozen=False),
  'frozen': Pool('gaussian', same=False, frozen=True),
  'orthogonal': Pool('disjoint', same=False, frozen=True),
}
MERGES = (
  *('sum', 'separate', 'ties', 'ties_factors', 'knots', 'tsv'),
  *('lego', 'lego_invariant', 'truncated', 'rmm'),
)


# Merges that are measured at other ranks too, of the first pool.
BY_RANK = ('lego', 'truncated')


class Setting(NamedTuple):
  """Tasks and config of a run.

  Attributes:
    config: of the run.
    problem: tasks and model.
  """

  config: ml_collections.ConfigDict
  problem: problems.Problem


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  checks.choices('pools', config.pools, tuple(POOLS))
  for field in ('merges', 'frozen_merges'):
    checks.choices(field, config[field], MERGES)
  checks.sizes(
    {
      'seeds': (config.seeds, 1, None),
      'lora.rank': (config.lora.rank, 1, None),
      'lora.steps': (config.lora.steps, 1, None),
      'base.steps': (config.base.steps, 1, None),
      'density': (config.density, 0, 1),
      'ranks': (tuple(config.ranks), 1, None),
    }
  )
  if 1.0 not in config.coefs:
    raise ValueError(f'coefs={config.coefs}: 1.0 has to be one of them')
  problem = problems.load(config)
  body = problems.shapes(problem)['body']
  inputs = min(x.shape[0] for x in adapted(config, body).values())
  most = inputs // len(problem.names)
  if config.lora.rank > most:
    raise ValueError(
      f'lora.rank={config.lora.rank}: expected at most {most}, so that '
      f'orthogonal bases of {len(problem.names)} tasks have room'
    )
  return Setting(config, problem)


def adapted(config: ml_collections.ConfigDict, body: Any) -> dict[str, Any]:
  """Returns the adapted leaves of a body by name."""
  chosen = tree.named(tree.select(body, config.lora.leaves))
  return {k: x for k, x in tree.named(body).items() if chosen[k]}


def merges_of(setting: Setting, pool: str) -> tuple[str, ...]:
  """Returns the merges of a pool."""
  config = setting.config
  frozen = POOLS[pool].frozen
  return tuple(config.frozen_merges if frozen else config.merges)


def describe(setting: Setting) -> str:
  """Returns the sizes of a run in one line."""
  config, problem = setting.config, setting.problem
  body = problems.shapes(problem)['body']
  leaves = adapted(config, body)
  size = lambda xs: sum(int(np.prod(x.shape)) for x in xs)
  added = config.lora.rank * sum(sum(x.shape) for x in leaves.values())
  return (
    f'{len(problem.names)} tasks ({", ".join(problem.names)}) x '
    f'{config.seeds} seeds x {len(config.pools)} pools; body of '
    f'{size(tree.named(body).values()):,} parameters, LoRAs of rank '
    f'{config.lora.rank} of {added:,} on {len(leaves)} leaves'
  )
