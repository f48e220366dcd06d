"""Clusters of hidden units of equal size."""

from typing import Any

import jax
import numpy as np

from wsl import align, tree, types
from wsl.surgery._experts import brick_edits, bricks, split


def unit_features(
  mlp: types.Params,
  *,
  symmetry: align.Symmetry,
  leaves: types.Leaves = '',
  group: str | None = None,
) -> np.ndarray:
  """Returns a vector for each hidden unit: its weights in some leaves.

  Args:
    mlp: the parameters of a perceptron, in memory or on demand.
    symmetry: of the perceptron alone.
    leaves: the leaves to use, by a regular expression or a predicate, such as
      the input weights ``'up'`` (MoEfication); all with an axis of the units by
      default.
    group: the name of the group; not needed if there is only one.

  Returns:
    float64 ``[n, d]``.

  Raises:
    ValueError: if none of the leaves has an axis of the units.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> h, x = align.Factor('h', 3), align.Factor('x', 2, 'an input')
    >>> symmetry = align.Symmetry((h, x), (('up', ((('x',),), (('h',),))),))
    >>> mlp = {'up': jnp.arange(6.0).reshape(2, 3)}
    >>> unit_features(mlp, symmetry=symmetry).tolist()
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
  """
  found = bricks.group_of('unit_features', symmetry, group)
  bricks.check_fits('unit_features', mlp, symmetry)
  units = np.arange(found.size)[:, None]
  brick = bricks.brick_of_units(symmetry, units, group=found.name)
  chosen = tree.named(tree.select(mlp, leaves))
  brick = {name: part for name, part in brick.items() if chosen[name]}
  if not brick:
    raise ValueError(
      f'unit_features: leaves={leaves!r} has no axis of the units '
      f"'{found.name}': choose other leaves"
    )
  rows = brick_edits.retrieve_brick(mlp, brick)
  return np.concatenate(
    [
      np.asarray(tree.read(x), np.float64).reshape(found.size, -1)
      for x in rows.values()
    ],
    axis=1,
  )


def random_clusters(
  units: int, *, clusters: int, key: types.PRNGKey
) -> types.Array:
  """Divides units into clusters of equal size at random.

  Args:
    units: their number n.
    clusters: E, which divides n.
    key: a random key.

  Returns:
    The units of each cluster, ``[E, n / E]``.

  Raises:
    ValueError: if E does not divide n.

  Example:
    >>> random_clusters(6, clusters=2, key=jax.random.key(0)).shape
    (2, 3)

  Reference:
    Zhu et al., "LLaMA-MoE: Building Mixture-of-Experts from LLaMA with
    Continual Pre-training", 2024, arXiv:2406.16554.
  """
  split.check_divides('random_clusters', units, clusters, 'clusters')
  return jax.random.permutation(key, units).reshape(clusters, -1)


def balanced_clusters(
  features: Any,
  *,
  clusters: int,
  key: types.PRNGKey,
  starts: int = 1,
  max_steps: int = 50,
) -> np.ndarray:
  r"""Divides points into clusters of equal size, with small squared distances.

  .. math:: \min_{I, c} \sum_{e=1}^{E} \sum_{j \in I_e} \lVert x_j - c_e
    \rVert^2 \quad \text{with all } |I_e| = n / E

  Alternates between the best centres of given clusters, their means, and the
  best clusters of given centres, an assignment of the points to n / E places of
  each centre. Neither step increases the sum, and there are finitely many
  clusterings, so that it ends in a local minimum.

  Runs on the host in float64. A step is an assignment of n points to n places,
  ``O(n^3)`` at worst and ``8 n^2`` bytes: seconds for thousands of units.

  Args:
    features: x, ``[n, d]``, such as ``unit_features``.
    clusters: E, which divides n.
    key: a random key, for the points that the first centres are.
    starts: the number of starts, at least 1; the best result is returned.
    max_steps: the largest number of steps of a start, at least 1.

  Returns:
    The points of each cluster, in order, int32 ``[E, n / E]``.

  Raises:
    ValueError: if E does not divide n, the features are no finite matrix, or
      ``starts`` or ``max_steps`` is less than 1.

  Example:
    >>> import jax
    >>> x = [[0.0], [9.0], [1.0], [8.0]]
    >>> found = balanced_clusters(x, clusters=2, key=jax.random.key(0))
    >>> sorted(found.tolist())
    [[0, 2], [1, 3]]

  Reference:
    Malinen and Fränti, "Balanced K-Means for Clustering", 2014; Zhang et al.,
    "MoEfication: Transformer Feed-forward Layers are Mixtures of Experts",
    2021, arXiv:2110.01786.
  """
  x = np.asarray(features, np.float64)
  if x.ndim != 2 or not np.isfinite(x).all():
    raise ValueError(
      f'balanced_clusters: features have shape {x.shape}: expected finite '
      'numbers [n, d]'
    )
  size = split.check_divides('balanced_clusters', len(x), clusters, 'clusters')
  tree.check_whole('balanced_clusters', starts=starts, max_steps=max_steps)
  if starts < 1 or max_steps < 1:
    raise ValueError(
      f'balanced_clusters: starts={starts}, max_steps={max_steps}: expected at '
      'least 1 of each'
    )
  best, found = np.inf, np.zeros(0, np.int32)
  for one in jax.random.split(key, starts):
    first = np.asarray(jax.random.permutation(one, len(x)))[:clusters]
    labels, total = _descend(x, x[first], size, max_steps)
    if total < best:
      best, found = total, labels
  order = np.argsort(found, kind='stable')
  return order.reshape(clusters, size).astype(np.int32)


def _descend(
  x: np.ndarray, centres: np.ndarray, size: int, max_steps: int
) -> tuple[np.ndarray, float]:
  """Returns the cluster of each point, and the sum of squared distances."""
  labels, total = np.full(len(x), -1), np.inf
  for _ in range(max_steps):
    # |x|^2 is the same for all places: the gains are 2 x.c - |c|^2.
    gains = 2 * x @ centres.T - np.square(centres).sum(1)
    places = np.repeat(gains, size, axis=1)
    new = align.assign_scipy(places) // size
    if (new == labels).all():
      break
    labels = new
    # Clusters have equal sizes, so that all centres are means of n / E points.
    hot = labels == np.arange(len(centres))[:, None]
    centres = hot @ x / size
    total = float(np.square(x - centres[labels]).sum())
  return labels, total


def center_router(features: Any, index: Any) -> types.Array:
  r"""Returns a router that scores an input by the mean input weights of units.

  .. math:: s_e(x) = x \cdot \frac{c_e}{\lVert c_e \rVert}, \qquad
    c_e = \frac{1}{m} \sum_{j \in I_e} u_j

  Args:
    features: u, the input weights of the units, ``[n, d]``:
      ``unit_features(mlp, symmetry=symmetry, leaves='up')``.
    index: the units of each expert, ``[E, m]``.

  Returns:
    The kernel of the router, float32 or wider, ``[d, E]``.

  Example:
    >>> u = np.asarray([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    >>> center_router(u, [[0, 1], [2, 3]]).tolist()
    [[1.0, 0.0], [0.0, 1.0]]

  Reference:
    Zhang et al., "MoEfication: Transformer Feed-forward Layers are Mixtures of
    Experts", 2021, arXiv:2110.01786 (parameter centres).

  Differs from the official code, which takes the cosine: the norm of x is the
  same for all experts, so that the best k are too.
  """
  x = np.asarray(features)
  centres = x.astype(tree.wide_dtype(x))[np.asarray(index)].mean(1)
  norms = np.linalg.norm(centres, axis=-1, keepdims=True)
  return jax.numpy.asarray((centres / np.where(norms > 0, norms, 1)).T)
