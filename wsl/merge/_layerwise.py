"""Layer-wise merging: one method, with parameters of its own in each layer."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _stack


def layerwise(
  deltas: types.Deltas,
  *,
  method: Callable[[types.Deltas, Any], types.Delta],
  parameters: types.Tree,
  depth: str,
  granularity: int = 1,
) -> types.Delta:
  r"""Merges each group of layers by a method with parameters of its own.

  .. math:: \tau^{(l)} = \operatorname{merge}(\tau_1^{(l)}, \dots, \tau_T^{(l)};
    \phi_{g(l)}), \qquad g(l) = \lfloor l / n \rfloor

  With equal parameters in all groups it is the method itself, if that ranks
  within leaves. ``search.layerwise`` finds parameters by evaluations.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]`` or in factors.
    method: ``method(part, phi)`` merges the leaves of one group, a dict of
      leaves ``[T, ...]`` by name, such as ``lambda x, phi: merge.ties(x,
      density=phi['density'], weights=phi['weights'], scope='leaf')``. A
      threshold or norm of the whole model is one of the group.
    parameters: phi of all groups, every leaf ``[G, ...]``; may be traced.
    depth: a regular expression, searched in each name, with one group that
      captures the number l of the layer: ``r'layers_(\d+)/'``. Leaves outside
      of layers (embeddings, the head) are in the first group, as in mergekit.
    granularity: n >= 1, the number of layers of a group.

  Returns:
    The merged task vector, every leaf ``[...]``.

  Raises:
    ValueError: if ``depth`` finds no layer, ``parameters`` are not of G =
      ceil(L / n) groups, or the method does not merge.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import merge
    >>> tasks = {f'layer_{i}': jnp.asarray([[1.0], [3.0]]) for i in range(2)}
    >>> found = layerwise(
    ...   tasks,
    ...   method=lambda x, w: merge.sum(x, weights=w),
    ...   parameters=jnp.asarray([[1.0, 0.0], [0.5, 0.5]]),
    ...   depth=r'layer_(\d+)',
    ... )
    >>> {name: x.tolist() for name, x in found.items()}
    {'layer_0': [1.0], 'layer_1': [2.0]}

  Reference:
    Zhang et al., "Unconstrained Model Merging for Enhanced LLM Reasoning",
    2024, arXiv:2410.13699; Akiba et al., "Evolutionary Optimization of Model
    Merging Recipes", 2024, arXiv:2403.13187.

  No official code was found; groups are those of mergekit-evolve.
  """
  _stack.count('layerwise', deltas)
  whole = isinstance(granularity, (int, np.integer))
  if not whole or isinstance(granularity, bool) or granularity < 1:
    raise ValueError(
      f'layerwise(granularity={granularity!r}): expected an integer >= 1'
    )
  label, leaves = f"layerwise(depth='{depth}')", _leaves(deltas)
  layers = {name: tree.layer(label, depth, name) for name in leaves}
  if max(layers.values()) < 0:
    raise ValueError(
      f'{label}: found no layer in names such as {list(leaves)[:3]}'
    )
  count = max(layers.values()) // granularity + 1
  for name, x in tree.named(parameters).items():
    if np.shape(x)[:1] != (count,):
      leaf = f" leaf '{name}'" if name else ''
      raise ValueError(
        f'layerwise: parameters{leaf} has shape {np.shape(x)}: give '
        f'[{count}, ...], one row for each group of layers'
      )
  found: dict[str, Any] = {}
  for g in range(count):
    inside = lambda layer, g=g: max(layer, 0) // granularity == g
    part = {name: x for name, x in leaves.items() if inside(layers[name])}
    if not part:
      continue
    merged = method(part, jax.tree.map(lambda x, g=g: x[g], parameters))
    named = _leaves(merged)
    for name, x in part.items():
      shape = x.shape if deltas_lib.is_factors(x) else x.shape[1:]
      if name not in named or named[name].shape != shape:
        raise ValueError(
          f"layerwise: method returned no merge {shape} of leaf '{name}': give "
          'one such as merge.ties, or an edit and merge.sum'
        )
    found |= named
  return tree.map_named(
    lambda name, _: found[name], deltas, is_leaf=deltas_lib.is_factors
  )


def _leaves(delta: types.Tree) -> dict[str, Any]:
  """Returns leaves by name; one in factors is a leaf."""
  return tree.named(delta, is_leaf=deltas_lib.is_factors)
