"""Samples of the magnitudes, which place the first probes of a search."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl.tree import _nodes, _on_demand
from wsl.tree._chunks import reduce
from wsl.tree._ranks import bits, passes

SIZES = (1 << 12, 1 << 16)  # least and greatest size of the sample
# A sample of a leaf in a file is read in runs of so many entries at least, and
# in so many runs at most: each is a call of the operating system.
_RUN = 32
_RUNS = 64


def sort(
  samples: Sequence[Any], groups: passes.Groups, dtype: np.dtype, xp: Any
) -> tuple[Any, list[int]]:
  """Sorts the bits of each group's samples.

  Args:
    samples: for each leaf ``[T, s]``.
    groups: the group of each leaf.
    dtype: the float dtype of the bits.
    xp: the module of the result, numpy or jax.numpy.

  Returns:
    ``[G, T, s]``, padded at the end by the largest integer, and the number of
    entries of each group.
  """
  integer = bits.integer(dtype)
  on_host = all(isinstance(x, np.ndarray) for x in samples)
  order = bits.on_host if on_host else bits.of
  module: Any = np if on_host else jnp
  parts: dict[int, list[Any]] = {}
  for x, g in zip(samples, groups):
    parts.setdefault(g, []).append(order(x, integer))
  joined = [module.concatenate(parts[g], axis=1) for g in sorted(parts)]
  longest = max(x.shape[1] for x in joined)
  largest = np.iinfo(integer).max
  pad = lambda x: [(0, 0), (0, longest - x.shape[1])]
  padded = [module.pad(x, pad(x), constant_values=largest) for x in joined]
  found = module.sort(module.stack(padded), axis=2)
  return xp.asarray(found), [x.shape[1] for x in joined]


def draw(leaves: Sequence[Any], strides: Sequence[float]) -> list[Any]:
  """Reads samples of leaves to the host; in a trace they stay traced.

  One leaf at a time is in memory.
  """
  return [_draw(leaf, stride) for leaf, stride in zip(leaves, strides)]


def _draw(leaf: Any, stride: float) -> Any:
  """Samples a leaf."""
  size = leaf.size // leaf.shape[0]
  drawn = min(max(round(size / stride), 1), size)
  runs = min(max(drawn // _RUN, 1), _RUNS)
  length = max(drawn // runs, 1)
  first = (np.arange(runs) + 0.5) * (size / runs) - length / 2
  spans = [(max(int(i), 0), min(int(i) + length, size)) for i in first]
  part = reduce.sample(leaf, spans)
  if part is None:
    part = _on_demand.apply_kernel(
      passes.sample, leaf, stride=_nodes.Static(stride)
    )
    part = _on_demand.read(part)
  return part if isinstance(part, jax.core.Tracer) else np.asarray(part)
