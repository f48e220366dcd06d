"""Which experts are merged: M-SMoE's groups."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from wsl import tree


class ExpertGroups(NamedTuple):
  """A division of the E experts of a layer into G groups.

  Attributes:
    table: the group of each expert, int32 ``[E]``.
    dominant: the expert that each group is formed around, int32 ``[G]``.
  """

  table: np.ndarray
  dominant: np.ndarray


def group_counts(
  usage: Mapping[str, Any],
  *,
  average: float,
  exclude: Sequence[str] = (),
) -> dict[str, int]:
  r"""Returns the number of groups of each layer: more where usage is even.

  .. math:: u_{le} = \frac{f_{le}}{\max_j f_{lj}}, \qquad
    G_l = |\{e : u_{le} \text{ is among the } \bar G L \text{ largest}\}|

  All experts of the L layers are ranked together, after each layer's usage is
  divided by its maximum, so that every layer has one group at least.

  Args:
    usage: f, for each layer ``[E]``, such as ``Routing.usage``.
    average: the mean number of groups of a layer that is not excluded, from 1
      to E. Its product with the number of these layers is rounded.
    exclude: layers that keep all experts, such as the first.

  Returns:
    The number of groups of each layer. They add up to ``round(average L)`` and
    the experts of the excluded layers.

  Raises:
    ValueError: if usage is negative, not finite or zero in a layer, ``average``
      is out of range, or an excluded layer is unknown.

  Example:
    >>> usage = {'a': [0.25, 0.25, 0.25, 0.25], 'b': [0.97, 0.01, 0.01, 0.01]}
    >>> group_counts(usage, average=2.5)
    {'a': 4, 'b': 1}

  Reference:
    Li et al., "Merge, Then Compress: Demystify Efficient SMoE with Hints from
    Its Routing Policy", 2023, arXiv:2310.01334.

  Differs from the official code where usage ties at the threshold: that code
  keeps those above it, this one the first layers and experts, so that the sum
  is exact. Usage 1.0 at the threshold raises an error there.
  """
  shares = {
    name: checked_usage('group_counts', name, f) for name, f in usage.items()
  }
  for name in exclude:
    if name not in shares:
      raise ValueError(
        f"group_counts: exclude has '{name}', the layers are {list(shares)[:4]}"
      )
  merged = [name for name in shares if name not in exclude]
  size = min((len(shares[n]) for n in merged), default=1)
  tree.check_scalars('group_counts', average=average)
  if not 1 <= average <= size:
    raise ValueError(
      f'group_counts(average={average}): expected 1 .. {size}, the experts of '
      'a layer'
    )
  scaled = [shares[n] / shares[n].max() for n in merged]
  for u in scaled:
    u[u.argmax()] = np.inf  # before ties with it in other layers
  pooled = np.concatenate(scaled or [[]])
  rank = np.empty(len(pooled), np.int64)
  rank[np.argsort(-pooled, kind='stable')] = np.arange(len(pooled))
  kept = rank < round(average * len(merged))
  counts = {n: len(f) for n, f in shares.items()}
  start = 0
  for name in merged:
    stop = start + counts[name]
    counts[name] = int(kept[start:stop].sum())
    start = stop
  return counts


def group_experts(
  usage: Any,
  similarity: Any,
  *,
  count: int,
  capacity: int | None = None,
) -> ExpertGroups:
  r"""Groups experts around the most used ones.

  .. math:: D = \text{the } G \text{ experts of largest } f, \qquad
    g(e) = \arg\max_{d \in D} S_{ed}

  Args:
    usage: f, ``[E]``.
    similarity: S, ``[E, E]``, such as ``router_similarity``.
    count: G, from 1 to E: ``group_counts`` gives it for each layer.
    capacity: the largest number of experts of a group; None for no limit. The
      others join in the order of their usage, and a full group takes no more.

  Returns:
    The groups, those of the most used experts first.

  Raises:
    ValueError: if shapes do not fit, or a number is out of range.

  Example:
    >>> s = [[1.0, 0.2, 0.9], [0.2, 1.0, 0.3], [0.9, 0.3, 1.0]]
    >>> found = group_experts([0.6, 0.3, 0.1], s, count=2)
    >>> found.table.tolist(), found.dominant.tolist()
    ([0, 1, 0], [0, 1])

  Reference:
    Li et al., "Merge, Then Compress: Demystify Efficient SMoE with Hints from
    Its Routing Policy", 2023, arXiv:2310.01334.

  Differs from the official code in the decoder, where that code does not count
  the members of a group: its capacity has no effect there.
  """
  f = checked_usage('group_experts', '', usage)
  s = np.asarray(similarity, np.float64)
  if s.shape != (len(f), len(f)) or not np.isfinite(s).all():
    raise ValueError(
      f'group_experts: similarity has shape {s.shape}, expected finite '
      f'({len(f)}, {len(f)}), for the usage of {len(f)} experts'
    )
  tree.check_whole('group_experts', count=count, capacity=capacity)
  if not 1 <= count <= len(f):
    raise ValueError(
      f'group_experts(count={count}): expected 1 .. {len(f)}, the experts'
    )
  if capacity is not None and capacity * count < len(f):
    raise ValueError(
      f'group_experts(capacity={capacity}): {count} groups do not hold '
      f'{len(f)} experts'
    )
  # The most used experts keep the function of most tokens; the similarity of
  # router logits tells which of them the tokens of another expert would use.
  order = np.argsort(-f, kind='stable')
  dominant, others = order[:count], order[count:]
  table = np.empty(len(f), np.int32)
  table[dominant] = np.arange(count)
  members = np.ones(count, np.int64)
  for e in others:
    room = np.full(count, True) if capacity is None else members < capacity
    group = np.where(room, s[e, dominant], -np.inf).argmax()
    table[e] = group
    members[group] += 1
  return ExpertGroups(table, dominant.astype(np.int32))


def check_table(caller: str, groups: ExpertGroups) -> None:
  """Checks that each expert is in a group, and no group is empty."""
  count = len(groups.dominant)
  if {*np.ravel(groups.table).tolist()} != {*range(count)}:
    raise ValueError(
      f'{caller}: the table of groups has to name each of 0 .. {count - 1} '
      'and no other: take group_experts'
    )


def checked_usage(caller: str, layer: str, usage: Any) -> np.ndarray:
  """Returns the usage of the experts of a layer in float64, after checks."""
  f = np.asarray(usage, np.float64)
  fine = f.ndim == 1 and f.size and np.isfinite(f).all() and (f >= 0).all()
  if not fine or not f.any():
    where = f" of layer '{layer}'" if layer else ''
    raise ValueError(
      f'{caller}: usage{where} of shape {f.shape}: expected [E] numbers >= 0, '
      'not all of them 0'
    )
  return f
