"""CoLa: a search over paths through the blocks of a network, by tree search."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import tree, types
from wsl.surgery._paths import path_tree

Path = tuple[int, ...]


class PathValue(NamedTuple):
  """A path through the blocks, and its value.

  Attributes:
    path: the numbers of blocks in the order of evaluation.
    value: as ``evaluate`` returned it.
  """

  path: Path
  value: float


class PathSearch(NamedTuple):
  """The result of ``cola`` for S samples.

  Attributes:
    base: the value of the network itself for each sample, ``[S]``.
    found: for each sample all evaluated paths, in order; the first is the
      network itself.
    fronts: for each sample the paths of which none is both shorter and of no
      lower value, shortest first.
  """

  base: np.ndarray
  found: tuple[tuple[PathValue, ...], ...]
  fronts: tuple[tuple[PathValue, ...], ...]


def cola(
  evaluate: Callable[[np.ndarray], Any],
  *,
  depth: int,
  samples: int,
  simulations: int,
  key: types.PRNGKey,
  penalty: float = 0.1,
  explore: float = 1.0,
  span: int = 4,
  copies: int = 2,
  longest: int | None = None,
) -> PathSearch:
  r"""Searches, for each sample, for short paths through the blocks of value 1.

  A node of a Monte Carlo tree is a path; the root is the network,
  ``0, ..., D - 1``. An edit leaves out up to ``span`` consecutive blocks, or
  runs them up to ``copies`` times more. Each simulation adds one node and runs
  the network once, along its path:

  .. math:: r = v - \lambda \frac{n}{D}, \qquad
    \mathrm{UCB} = \bar r_c + c \sqrt{\ln N / N_c}

  with the mean reward of the nodes below a child c, after :math:`N_c` of the N
  visits of its parent. The child of the greatest bound is followed until a node
  has fewer children than the root of its visits; it gets another one, by a
  random edit. No path is evaluated twice for one sample.

  The trees of all samples take one step together, so that one call of
  ``evaluate`` runs a batch in which each sample has its own path (``vmap`` of
  ``follow``).

  With labels in ``evaluate`` the search is an oracle: the accuracy along the
  best paths says which paths exist, not what can be deployed.

  Args:
    evaluate: maps paths ``[S, longest]``, padded by -1, to the value of each
      sample along its path, ``[S]``: 1 if it is correct, else 0; or any number.
    depth: the number D of blocks.
    samples: the number S of samples.
    simulations: the number of paths for each sample beside the network; 0
      evaluates the network only.
    key: a random key.
    penalty: the cost :math:`\lambda` of a path of D blocks.
    explore: the weight c of rarely visited children.
    span: the largest number of blocks of one edit.
    copies: the largest number of further passes of one edit.
    longest: the largest length of a path; 2 D by default.

  Returns:
    All paths and their values; ``path_program`` makes programs of them.

  Raises:
    ValueError: if an argument is out of range, or ``evaluate`` returns another
      shape or a value that is not finite.

  Example:
    >>> import jax
    >>> import numpy as np
    >>> def odd(paths):  # correct without block 1
    ...   return 1.0 - np.any(paths == 1, axis=1)
    >>> search = cola(odd, depth=3, samples=1, simulations=6, copies=0,
    ...               key=jax.random.key(0))
    >>> float(search.base[0]), search.fronts[0][-1].value
    (0.0, 1.0)

  Reference:
    Li et al., "Skip a Layer or Loop it? Test-Time Depth Adaptation of
    Pretrained LLMs", 2025, arXiv:2507.07996. A reconstruction: no code is
    public, and the caps of edits, the reward and the number of children are not
    confirmed by a source.
  """
  longest = 2 * depth if longest is None else longest
  limits = path_tree.Limits(span, copies, longest)
  _check(depth, samples, simulations, limits, penalty, explore)
  words = np.asarray(jax.random.key_data(key)).ravel().tolist()
  generators = [np.random.default_rng([*words, s]) for s in range(samples)]
  start = tuple(range(depth))
  base = _values(evaluate, [start] * samples, longest)
  trees = [path_tree.Node(start) for _ in range(samples)]
  found: list[dict[Path, float]] = [{start: float(v)} for v in base]
  reward = lambda path, value: value - penalty * len(path) / depth
  for root, value in zip(trees, base):
    path_tree.record([root], reward(start, value))
  for _ in range(simulations):
    trails = [
      path_tree.descend(root, generator, limits, explore, seen)
      for root, generator, seen in zip(trees, generators, found)
    ]
    if not any(trails):
      break
    # A tree whose paths are exhausted runs the network again.
    paths = [trail[-1].path if trail else start for trail in trails]
    values = _values(evaluate, paths, longest)
    for trail, seen, path, value in zip(trails, found, paths, values):
      if trail:
        seen[path] = float(value)
        path_tree.record(trail, reward(path, value))
  results = tuple(
    tuple(PathValue(*item) for item in seen.items()) for seen in found
  )
  return PathSearch(base, results, tuple(map(_front, results)))


def _values(
  evaluate: Callable[[np.ndarray], Any], paths: list[Path], longest: int
) -> np.ndarray:
  """Returns the values of paths, ``[S]``, in float64."""
  padded = np.full((len(paths), longest), -1, np.int32)
  for row, path in zip(padded, paths):
    row[: len(path)] = path
  values = np.asarray(evaluate(padded), np.float64)
  if values.shape != (len(paths),) or not np.isfinite(values).all():
    raise ValueError(
      f'cola: evaluate returned shape {list(values.shape)} for {len(paths)} '
      'paths, or values that are not finite: return one number for each'
    )
  return values


def _front(found: tuple[PathValue, ...]) -> tuple[PathValue, ...]:
  """Returns the paths that no other dominates, shortest first."""
  order = sorted(found, key=lambda x: (len(x.path), -x.value))
  front: list[PathValue] = []
  for one in order:
    if not front or one.value > front[-1].value:
      front.append(one)
  return tuple(front)


def _check(
  depth: int,
  samples: int,
  simulations: int,
  limits: path_tree.Limits,
  penalty: float,
  explore: float,
) -> None:
  """Checks the arguments of ``cola``."""
  least = {
    'depth': (depth, 1),
    'samples': (samples, 1),
    'simulations': (simulations, 0),
    'span': (limits.span, 1),
    'copies': (limits.copies, 0),
    'longest': (limits.longest, depth),
  }
  for name, (value, low) in least.items():
    tree.check_whole('cola', **{name: value})
    if value < low:
      raise ValueError(f'cola: {name}={value!r}: a whole number >= {low}')
  tree.check_scalars('cola', penalty=penalty, explore=explore)
  if not penalty >= 0 or not explore >= 0:
    raise ValueError(
      f'cola: penalty={penalty}, explore={explore}: expected numbers >= 0'
    )
