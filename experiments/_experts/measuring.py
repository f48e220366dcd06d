"""The losses of merged and dropped experts, before and after training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experts import merging, settings, training
from experiments._run import console
from experiments._shared import side_by_side
from wsl import tree, types

# Variants that are trained further; all have equal counts.
TUNED = {
  'merged': merging.Variant(shared_ranking=False),
  'not aligned': merging.Variant(aligned=False, shared_ranking=False),
}


def measure(
  setting: settings.Setting, kind: str, params: types.Params
) -> dict[str, Any]:
  """Merges and drops experts without further training.

  Args:
    setting: of the run.
    kind: of the models, for the progress line.
    params: ``[S, ...]``.

  Returns:
    ``usage``, ``[S][layers][E]``; ``whole``, test bits ``[S][D]``; ``bits``, by
    variant ``[averages][S][D]``.
  """
  config = setting.config
  averages = tuple(config.merge.averages)
  names = [*merging.VARIANTS, merging.DROP]
  bits: dict[str, list[Any]] = {name: [] for name in names}
  every = [
    merging.layers(setting, side_by_side.pick(params, s))
    for s in range(config.seeds)
  ]
  with console.progress(f'merges of {kind}', len(averages)) as tick:
    for average in averages:
      for name in names:
        found = [
          _of_seed(setting, params, every[s], name, average, s)
          for s in range(config.seeds)
        ]
        bits[name].append(np.stack(found).tolist())
      tick(f'{np.mean(bits["M-SMoE"][-1]):.3f}')
  return {
    'usage': [[f.tolist() for f in x.usage] for x in every],
    'whole': training.bits(setting, setting.exact, params, 'test').tolist(),
    'bits': bits,
  }


def tune(
  setting: settings.Setting, kind: str, params: types.Params
) -> dict[str, Any]:
  """Trains merged and dropped experts further.

  Returns:
    By variant, test bits before and after, ``[2][S][D]``.
  """
  config = setting.config
  count, balance = config.fine_tuning.count, config.experts.balance
  every = [
    merging.layers(setting, side_by_side.pick(params, s))
    for s in range(config.seeds)
  ]
  starts, tables = [], []
  for variant in TUNED.values():
    for s, found in enumerate(every):
      merged = merging.merge(found, variant, count, seed=s)
      one = side_by_side.pick(params, s)
      starts.append(
        merging.with_experts(one, [experts for experts, _ in merged])
      )
      tables.append(np.stack([groups.table for _, groups in merged]))
  stack, table = tree.stack(starts), jnp.asarray(np.stack(tables))
  advance = lambda label, model, starts, bound=None: training.advance(
    setting,
    f'{label} {kind}',
    training.sparse_loss(model, balance),
    starts,
    4,
    config.fine_tuning.steps,
    config.fine_tuning.rate,
    bound,
  )
  repeat = jax.vmap(training.tie)
  after = repeat(advance('merged', setting.sparse, stack, table), table)
  pairs = [
    training.bits(setting, setting.exact, x, 'test')
    for x in (repeat(stack, table), after)
  ]
  both = np.stack(pairs).reshape(2, len(TUNED), config.seeds, -1)
  bits = {name: both[:, i].tolist() for i, name in enumerate(TUNED)}
  dropped = tree.stack(
    [
      merging.drop(side_by_side.pick(params, s), x, count)
      for s, x in enumerate(every)
    ]
  )
  exact, sparse = (_fewer(m, count) for m in (setting.exact, setting.sparse))
  bits[merging.DROP] = [
    training.bits(setting, exact, x, 'test').tolist()
    for x in (dropped, advance(merging.DROP, sparse, dropped))
  ]
  return bits


def _of_seed(
  setting: settings.Setting,
  params: types.Params,
  found: merging.Layers,
  name: str,
  average: int,
  seed: int,
) -> np.ndarray:
  """Returns the test bits of a variant of one model, ``[D]``."""
  one = side_by_side.pick(params, seed)
  if name == merging.DROP:
    model, new = (
      _fewer(setting.exact, average),
      merging.drop(one, found, average),
    )
  else:
    merged = merging.merge(found, merging.VARIANTS[name], average, seed=seed)
    model, new = setting.exact, merging.tied(one, merged)
  stack = jax.tree.map(lambda x: x[None], new)
  return training.bits(setting, model, stack, 'test')[0]


def _fewer(model: Any, count: int) -> Any:
  """Returns the module with fewer experts."""
  return model.clone(experts=count, top_k=min(model.top_k, count))
