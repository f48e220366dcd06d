"""A Monte Carlo tree of paths: edits, selection, statistics."""

from collections.abc import Container
import dataclasses
import math
from typing import NamedTuple

import numpy as np

Path = tuple[int, ...]


class Limits(NamedTuple):
  """The largest span of an edit, further passes of it, and path."""

  span: int
  copies: int
  longest: int


@dataclasses.dataclass
class Node:
  """A path, and the rewards of its node and all below.

  Attributes:
    path: the blocks in order.
    visits: the number of rewards.
    total: their sum.
    children: nodes of edited paths.
    edits: paths that no child has yet, in random order; None before the first
      visit.
    exhausted: whether no new path is below.
  """

  path: Path
  visits: int = 0
  total: float = 0.0
  children: list['Node'] = dataclasses.field(default_factory=list)
  edits: list[Path] | None = None
  exhausted: bool = False


def edited(path: Path, limits: Limits) -> list[Path]:
  """Returns the paths that one edit makes, each once.

  Example:
    >>> edited((0, 1), Limits(span=1, copies=1, longest=3))
    [(1,), (0, 0, 1), (0,), (0, 1, 1)]
  """
  found: dict[Path, None] = {}
  for start in range(len(path)):
    for size in range(1, min(limits.span, len(path) - start) + 1):
      head, part, tail = _split(path, start, size)
      if head or tail:
        found[head + tail] = None
      room = (limits.longest - len(path)) // size
      for n in range(1, min(limits.copies, room) + 1):
        found[head + part * (n + 1) + tail] = None
  found.pop(path, None)
  return list(found)


def descend(
  root: Node,
  generator: np.random.Generator,
  limits: Limits,
  explore: float,
  seen: Container[Path],
) -> list[Node]:
  """Adds a node for a path that is not in ``seen``.

  Args:
    root: the tree; its nodes have been visited.
    generator: of the order of edits.
    limits: of edits.
    explore: the weight of rarely visited children.
    seen: paths that are not evaluated again.

  Returns:
    The nodes from the root to the new one; none if no new path is left.
  """
  trail = [root]
  while trail:
    node = trail[-1]
    # Progressive widening: about sqrt(N) children after N visits, so that the
    # bounds compare children of several visits each.
    open_children = [x for x in node.children if not x.exhausted]
    if not open_children or len(node.children) < math.sqrt(node.visits):
      path = _new_path(node, generator, limits, seen)
      if path is not None:
        child = Node(path)
        node.children.append(child)
        return [*trail, child]
    if open_children:
      bound = lambda c, n=node.visits: (
        c.total / c.visits + explore * math.sqrt(math.log(n) / c.visits)
      )
      trail.append(max(open_children, key=bound))
    else:
      node.exhausted = True
      trail.pop()
  return []


def record(trail: list[Node], reward: float) -> None:
  """Adds the reward of the last node to all nodes above it."""
  for node in trail:
    node.visits += 1
    node.total += reward


def _new_path(
  node: Node,
  generator: np.random.Generator,
  limits: Limits,
  seen: Container[Path],
) -> Path | None:
  """Returns a random edit of a node that is new, or None."""
  if node.edits is None:
    paths = edited(node.path, limits)
    node.edits = [paths[i] for i in generator.permutation(len(paths))]
  while node.edits:
    path = node.edits.pop()
    if path not in seen:
      return path
  return None


def _split(path: Path, start: int, size: int) -> tuple[Path, Path, Path]:
  """Splits a path into the part before a range, the range, and the rest."""
  stop = start + size
  return path[:start], path[start:stop], path[stop:]
