"""Experts of trained models merged or dropped, by the statistics of routing."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experts import settings, training
from experiments._run import console
from experiments._shared import side_by_side
from experiments._shared.texts import language
from wsl import models, surgery, tree, types


class Variant(NamedTuple):
  """A merge of experts; the defaults are M-SMoE.

  Attributes:
    aligned: whether the units of all experts match those of the first.
    by_usage: whether experts are weighted by their usage.
    by_router: whether groups are of similar router logits, or random.
    shared_ranking: whether layers of even usage have more groups, or all have
      the same number.
  """

  aligned: bool = True
  by_usage: bool = True
  by_router: bool = True
  shared_ranking: bool = True


VARIANTS = {
  'M-SMoE': Variant(),
  'equal counts': Variant(shared_ranking=False),
  'uniform weights': Variant(by_usage=False),
  'not aligned': Variant(aligned=False),
  'random groups': Variant(by_router=False),
}
DROP = 'drop'
# Variants that are trained further; all have equal counts.
TUNED = {
  'merged': Variant(shared_ranking=False),
  'not aligned': Variant(aligned=False, shared_ranking=False),
}


class Layers(NamedTuple):
  """What merges of one model need, layer by layer.

  Attributes:
    experts: as they are, leaves ``[E, ...]``.
    aligned: with their units matched to the first.
    usage: ``[E]``.
    similarity: of router logits, ``[E, E]``.
  """

  experts: list[types.Params]
  aligned: list[types.Params]
  usage: list[np.ndarray]
  similarity: list[np.ndarray]


def layers(setting: settings.Setting, params: types.Params) -> Layers:
  """Measures the routing of one model on training text, aligns its experts."""
  corpus, config = setting.corpus, setting.config
  rows = corpus.rows[:, : config.merge.windows].reshape(-1)
  tokens, _ = language.split(jnp.asarray(corpus.train[rows]))
  logits_fn = _logits_fn(setting.exact)
  size = config.evaluation.batch_size
  batches = [tokens[i : i + size] for i in range(0, len(tokens), size)]
  found = surgery.routing(logits_fn, params, batches, top_k=setting.exact.top_k)
  experts = [params[name[: -len('/mlp')]]['mlp']['experts'] for name in found]
  align = lambda x: surgery.align_experts(
    x, symmetry=setting.symmetry, key=jax.random.key(0)
  )
  return Layers(
    experts,
    [align(x) for x in experts],
    [np.asarray(r.usage, np.float64) for r in found.values()],
    [surgery.router_similarity(r) for r in found.values()],
  )


def merge(
  found: Layers, variant: Variant, average: int, *, seed: int
) -> list[tuple[types.Params, surgery.Groups]]:
  """Returns merged experts ``[G, ...]`` and groups of each layer."""
  numbers = dict(enumerate(found.usage))
  counts = {str(i): average for i in numbers}
  if variant.shared_ranking:
    usage = {str(i): f for i, f in numbers.items()}
    counts = surgery.group_counts(usage, average=average)
  rng = np.random.default_rng(seed)
  merged = []
  for i, f in numbers.items():
    similarity = found.similarity[i]
    if not variant.by_router:
      similarity = rng.uniform(size=similarity.shape)
    groups = surgery.group_experts(f, similarity, count=counts[str(i)])
    experts = (found.aligned if variant.aligned else found.experts)[i]
    weights = f if variant.by_usage else np.ones_like(f)
    merged.append(
      (surgery.merge_experts(experts, groups, usage=weights), groups)
    )
  return merged


def tied(
  params: types.Params, merged: list[tuple[types.Params, surgery.Groups]]
) -> types.Params:
  """Returns the model in which the merged experts are repeated."""
  return _with_experts(params, [surgery.tie_experts(*pair) for pair in merged])


def drop(params: types.Params, found: Layers, count: int) -> types.Params:
  """Keeps the most used experts of each layer."""
  new = dict(params)
  for i, f in enumerate(found.usage):
    keep = np.sort(np.argsort(-f, kind='stable')[:count])
    mlp = surgery.drop_experts(params[f'block_{i}']['mlp'], keep)
    new[f'block_{i}'] = {**params[f'block_{i}'], 'mlp': mlp}
  return new


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
  names = [*VARIANTS, DROP]
  bits: dict[str, list[Any]] = {name: [] for name in names}
  every = [
    layers(setting, side_by_side.pick(params, s)) for s in range(config.seeds)
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
    layers(setting, side_by_side.pick(params, s)) for s in range(config.seeds)
  ]
  starts, tables = [], []
  for variant in TUNED.values():
    for s, found in enumerate(every):
      merged = merge(found, variant, count, seed=s)
      one = side_by_side.pick(params, s)
      starts.append(_with_experts(one, [experts for experts, _ in merged]))
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
    [drop(side_by_side.pick(params, s), x, count) for s, x in enumerate(every)]
  )
  exact, sparse = (_fewer(m, count) for m in (setting.exact, setting.sparse))
  bits[DROP] = [
    training.bits(setting, exact, x, 'test').tolist()
    for x in (dropped, advance(DROP, sparse, dropped))
  ]
  return bits


def _of_seed(
  setting: settings.Setting,
  params: types.Params,
  found: Layers,
  name: str,
  average: int,
  seed: int,
) -> np.ndarray:
  """Returns the test bits of a variant of one model, ``[D]``."""
  one = side_by_side.pick(params, seed)
  if name == DROP:
    model, new = _fewer(setting.exact, average), drop(one, found, average)
  else:
    merged = merge(found, VARIANTS[name], average, seed=seed)
    model, new = setting.exact, tied(one, merged)
  stack = jax.tree.map(lambda x: x[None], new)
  return training.bits(setting, model, stack, 'test')[0]


def _with_experts(
  params: types.Params, experts: list[types.Params]
) -> types.Params:
  """Returns the model with other experts in its layers."""
  new = dict(params)
  for i, own in enumerate(experts):
    block = params[f'block_{i}']
    new[f'block_{i}'] = {**block, 'mlp': {**block['mlp'], 'experts': own}}
  return new


def _fewer(model: Any, count: int) -> Any:
  """Returns the module with fewer experts."""
  return model.clone(experts=count, top_k=min(model.top_k, count))


# One function for each model: programs are kept as long as their functions.
@functools.lru_cache(maxsize=4)
def _logits_fn(model: Any) -> Callable[..., dict[str, types.Array]]:
  """Returns the function from (params, tokens) to the logits of routers."""
  return lambda params, x: models.router_logits(model, params, x)[1]
