"""Suites, methods and subsets of a run."""

from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from experiments._run import checks
from experiments._shared import merge_methods, protocols, suites

BENCH, SCALE, WILD = 'merge_bench', 'at_scale', 'in_the_wild'
PROTOCOLS = (BENCH, SCALE, WILD)


class Setting(NamedTuple):
  """What a run measures.

  Attributes:
    config: of the run.
    suites: of all tasks, by the size of the model.
    experts: the number of tasks with an expert, the first of the suite.
    methods: by protocol.
    members: experts of each merge, ``[D, P]``, by protocol.
    tasks: of each unlike expert, ``[k]``, by group: ``[experts][k]``.
  """

  config: ml_collections.ConfigDict
  suites: dict[str, suites.Suite]
  experts: int
  methods: dict[str, list[merge_methods.Method]]
  members: dict[str, np.ndarray]
  tasks: dict[str, np.ndarray]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  checks.choices('sizes', config.sizes, list(config.models))
  found = {}
  for size in config.sizes:
    one = config.copy_and_resolve_references()
    one.model = size
    found[size] = suites.load(one)
  experts, count = config.experts_of, len(config.tasks)
  groups = config[WILD].groups
  checks.sizes(
    {
      'experts_of': (experts, 2, count - 1),
      **{
        f'{WILD}.groups.{name}.{field}': (group[field], least, most)
        for name, group in groups.items()
        for field, least, most in (
          ('experts', 1, None),
          ('tasks', 1, count),
          ('epochs', 1, None),
          ('noise', 0, 1),
        )
      },
    }
  )
  random = np.random.default_rng(config.seed)
  tasks = {
    name: np.stack(
      [
        np.sort(random.choice(count, group.tasks, replace=False))
        for _ in range(group.experts)
      ]
    )
    for name, group in groups.items()
  }
  members = {
    BENCH: np.ones((1, experts), bool),
    SCALE: _members(config, SCALE, experts),
    WILD: _members(config, WILD, sum(map(len, tasks.values()))),
  }
  methods = {
    protocol: _methods(config, protocol, found, members[protocol])
    for protocol in PROTOCOLS
  }
  return Setting(config, found, experts, methods, members, tasks)


def _members(
  config: ml_collections.ConfigDict, protocol: str, pool: int
) -> np.ndarray:
  """Draws the experts of each merge, ``[D, P]``."""
  chosen = config[protocol]
  key = jax.random.fold_in(
    jax.random.key(config.seed), PROTOCOLS.index(protocol)
  )
  try:
    return protocols.draw_members(
      pool, sizes=chosen.sizes, draws=chosen.draws, key=key
    )
  except ValueError as error:
    raise ValueError(f'{protocol}.{error}') from None


def _methods(
  config: ml_collections.ConfigDict,
  protocol: str,
  found: dict[str, suites.Suite],
  members: np.ndarray,
) -> list[merge_methods.Method]:
  """Reads the methods of a protocol, and traces them."""
  chosen = config[protocol]
  methods = merge_methods.parse(chosen.methods, chosen.arguments, config.coefs)
  for method in methods:
    if method.data == 'labelled' or (
      method.data != 'none' and (protocol == WILD or not method.statistics)
    ):
      raise ValueError(
        f"{protocol}.methods: '{method.name}' reads images, only "
        f'{" and ".join(merge_methods.STATISTICS)} are at hand in {BENCH} and '
        f'{SCALE}'
      )
    # The smallest and the largest subset: a trace takes a tenth of a second.
    counts = members.sum(1)
    for suite in found.values():
      for count in sorted({int(counts.min()), int(counts.max())}):
        _check(suite, method, count)
  return methods


def _check(
  suite: suites.Suite, method: merge_methods.Method, count: int
) -> None:
  """Traces a method on shapes, so that errors precede the training."""
  supplied = {
    name: suites.abstract(suite, name, (count,)) for name in method.statistics
  }
  supplied['key'] = jax.eval_shape(jax.random.key, 0)
  encoder = suites.shapes(suite)['encoder']
  merge_methods.check(method, encoder, count, supplied)


def describe(setting: Setting) -> str:
  """Returns suites, pools and merges in one line."""
  merges = ', '.join(
    f'{len(setting.methods[p])} methods on {len(setting.members[p])} subsets '
    f'({p})'
    for p in PROTOCOLS
  )
  sizes = ' and '.join(setting.suites)
  first = next(iter(setting.suites.values()))
  unlike = sum(map(len, setting.tasks.values()))
  return (
    f'{len(first.tasks.names)} tasks, {setting.experts} with an expert, '
    f'{unlike} unlike experts; models {sizes}; {setting.config.seeds} seeds; '
    f'{merges}'
  )
