"""Experts of trained models merged or dropped, by the statistics of routing."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experts import settings
from experiments._shared.texts import language
from wsl import models, surgery, types


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
) -> list[tuple[types.Params, surgery.ExpertGroups]]:
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
  params: types.Params, merged: list[tuple[types.Params, surgery.ExpertGroups]]
) -> types.Params:
  """Returns the model in which the merged experts are repeated."""
  return with_experts(params, [surgery.tie_experts(*pair) for pair in merged])


def drop(params: types.Params, found: Layers, count: int) -> types.Params:
  """Keeps the most used experts of each layer."""
  new = dict(params)
  for i, f in enumerate(found.usage):
    keep = np.sort(np.argsort(-f, kind='stable')[:count])
    mlp = surgery.drop_experts(params[f'block_{i}']['mlp'], keep)
    new[f'block_{i}'] = {**params[f'block_{i}'], 'mlp': mlp}
  return new


def with_experts(
  params: types.Params, experts: list[types.Params]
) -> types.Params:
  """Returns the model with other experts in its layers."""
  new = dict(params)
  for i, own in enumerate(experts):
    block = params[f'block_{i}']
    new[f'block_{i}'] = {**block, 'mlp': {**block['mlp'], 'experts': own}}
  return new


# One function for each model: programs are kept as long as their functions.
@functools.lru_cache(maxsize=4)
def _logits_fn(model: Any) -> Callable[..., dict[str, types.Array]]:
  """Returns the function from (params, tokens) to the logits of routers."""
  return lambda params, x: models.router_logits(model, params, x)[1]
