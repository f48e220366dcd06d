"""Mixtures with some of their experts, and the router entries of those."""

from typing import Any

import numpy as np

from wsl import tree, types
from wsl.surgery._experts import brick_edits, bricks


def drop_experts(
  layer: types.Params,
  keep: Any,
  *,
  experts: types.Leaves = '^experts/',
  router: types.Leaves = '^router/',
) -> types.Params:
  """Returns a mixture with some of its experts, and their router entries.

  Tokens are routed to the best of those that are left. The most used ones are
  ``np.argsort(-usage)[:count]``.

  Args:
    layer: the parameters of a mixture, such as ``block_0/mlp`` of a model of
      ``models``; in memory or on demand.
    keep: the experts to keep, integers, each once.
    experts: the leaves ``[E, ...]``, by a regular expression or a predicate.
    router: the leaves ``[..., E]``.

  Returns:
    The smaller mixture; other leaves, such as shared experts, are the same
    arrays.

  Raises:
    ValueError: if no leaf matches, leaves have different numbers of experts, or
      an expert is out of range or occurs twice.

  Example:
    >>> import jax.numpy as jnp
    >>> layer = {'router': jnp.arange(3.0)[None], 'experts': jnp.arange(3.0)}
    >>> found = drop_experts(layer, [0, 2], experts='experts', router='router')
    >>> found['router'].tolist(), found['experts'].tolist()
    ([[0.0, 2.0]], [0.0, 2.0])

  Reference:
    Lu et al., "Not All Experts are Equal: Efficient Expert Pruning and Skipping
    for Mixture-of-Experts Large Language Models", 2024, arXiv:2402.14800.

  Differs from the official code, which selects the experts whose absence
  changes the output of the layer least; here the caller does.
  """
  brick = {
    **bricks.brick_of_entries(layer, experts, keep),
    **bricks.brick_of_entries(layer, router, keep, axis=-1),
  }
  leaves = tree.named(layer)
  counts = {leaves[name].shape[part.axis] for name, part in brick.items()}
  if len(counts) > 1:
    raise ValueError(f'drop_experts: leaves of {sorted(counts)} experts match')
  if not np.size(keep):
    raise ValueError('drop_experts: keep is empty: keep one expert at least')
  found = brick_edits.retrieve_brick(layer, brick)
  return tree.map_named(lambda name, x: found.get(name, x), layer)
