"""Tokens of one text by two tokenizers, aligned by edit distance."""

from collections.abc import Mapping, Sequence

import numpy as np


def align_tokens(
  source: Sequence[str],
  target: Sequence[str],
  *,
  same: Mapping[str, str] | None = None,
) -> np.ndarray:
  r"""Aligns two tokenisations of a text by dynamic time warping.

  .. math:: D_{ij} = d(s_i, t_j) + \min(D_{i-1,j}, D_{i,j-1}, D_{i-1,j-1})

  with the edit distance d of tokens; the path of least cost from the last pair
  to the first gives the source tokens of each target token.

  Args:
    source: S tokens, without the marks of their tokenizer (such as the one of a
      leading space), or with those of the target's.
    target: N tokens of the same text.
    same: for source tokens that are spelled otherwise in the target's
      vocabulary, their spelling there; none by default.

  Returns:
    For each target token the position of its source token, ``[N]``; -1 where it
    has several, or one that is another token.

  Raises:
    ValueError: if a text has no token.

  Example:
    >>> align_tokens(['un', 'merged', ' net'], ['un', 'mer', 'ged', ' net'])
    array([ 0, -1, -1,  2])

  Reference:
    Wan et al., "Knowledge Fusion of Large Language Models", 2024,
    arXiv:2401.10491.
  """
  if not source or not target:
    raise ValueError('align_tokens: a text has no token: leave it out')
  cost = _costs(source, target)
  rows = _warp(cost)
  same = same or {}
  found = np.full(len(target), -1)
  for j, positions in enumerate(rows):
    token = source[positions[0]]
    if len(positions) == 1 and same.get(token, token) == target[j]:
      found[j] = positions[0]
  return found


def map_vocabulary(
  source: Sequence[str],
  target: Sequence[str],
  *,
  same: Mapping[str, str] | None = None,
) -> np.ndarray:
  """Returns the target's index of each token of a source vocabulary, or -1.

  Args:
    source: the tokens of the source, in the order of their indices.
    target: the tokens of the target.
    same: as in ``align_tokens``.

  Returns:
    Indices ``[V_s]``; -1 for tokens that the target has not.

  Example:
    >>> map_vocabulary(['a', 'b', 'ab'], ['ab', 'a'])
    array([ 1, -1,  0])

  Reference:
    Wan et al., 2024, arXiv:2401.10491.
  """
  index = {token: i for i, token in enumerate(target)}
  same = same or {}
  return np.asarray([index.get(same.get(x, x), -1) for x in source], int)


def _costs(source: Sequence[str], target: Sequence[str]) -> np.ndarray:
  """Returns the accumulated costs D of all pairs, ``[S, N]``."""
  distances: dict[tuple[str, str], int] = {}
  cost = np.full((len(source) + 1, len(target) + 1), np.inf)
  cost[0, 0] = 0
  for i, a in enumerate(source):
    for j, b in enumerate(target):
      if (a, b) not in distances:
        distances[a, b] = _edit_distance(a, b)
      before = min(cost[i, j + 1], cost[i + 1, j], cost[i, j])
      cost[i + 1, j + 1] = distances[a, b] + before
  return cost[1:, 1:]


def _warp(cost: np.ndarray) -> list[list[int]]:
  """Returns the source positions of each target position, ``[N]`` lists."""
  i, j = (n - 1 for n in cost.shape)
  found: list[list[int]] = [[] for _ in range(cost.shape[1])]
  found[j].append(i)
  while i or j:
    # Of equal costs the diagonal is taken first, then the source.
    steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
    i, j = min(
      (step for step in steps if min(step) >= 0), key=lambda step: cost[step]
    )
    found[j].append(i)
  return found


def _edit_distance(a: str, b: str) -> int:
  """Returns the least number of insertions, deletions and replacements."""
  row = list(range(len(b) + 1))
  for i, x in enumerate(a, 1):
    above, row[0] = row[0], i
    for j, y in enumerate(b, 1):
      least = min(row[j] + 1, row[j - 1] + 1, above + (x != y))
      above, row[j] = row[j], least
  return row[-1]
