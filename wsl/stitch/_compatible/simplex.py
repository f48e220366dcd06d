"""The d-Simplex: a classifier that no model has to learn."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.stitch._compatible import bct


def simplex(
  classes: int, *, dtype: jax.typing.DTypeLike = jnp.float32
) -> types.Array:
  r"""Returns the corners of a regular simplex: one fixed direction a class.

  .. math:: \|w_i\| = 1, \quad w_i^\top w_j = -\frac{1}{K - 1} \; (i \ne j),
    \quad \sum_i w_i = 0

  Networks that learn with these rows as their frozen last layer, each on its
  own data, put each class at the same place, and can be compared. Allow for
  classes to come: rows that no class has yet keep their space free.

  Args:
    classes: K, 2 or more; the width of the features is ``K - 1``.
    dtype: of the result; computed in float64.

  Returns:
    ``[K, K - 1]``; logits are ``features @ simplex(K).T``.

  Raises:
    ValueError: if there are fewer than 2 classes.

  Example:
    >>> simplex(2).tolist()
    [[1.0], [-1.0]]
    >>> rows = simplex(5)
    >>> (rows @ rows.T)[0].round(3).tolist()
    [1.0, -0.25, -0.25, -0.25, -0.25]

  Reference:
    Pernici et al., "Regular Polytope Networks", 2021, arXiv:2103.15632; Biondi
    et al., "Stationary Representations: Optimally Approximating Compatibility
    and Implications for Improved Model Replacements", 2024, arXiv:2405.02581
    (with 1024 classes allowed for).
  """
  if classes < 2:
    raise ValueError(f'simplex: classes={classes}: expected 2 or more')
  width = classes - 1
  # Unit vectors and one more point, as far from all of them as they are.
  last = np.full((1, width), (1 - classes**0.5) / width)
  points = np.concatenate([np.eye(width), last])
  points -= points.mean(0)
  points /= np.linalg.norm(points, axis=1, keepdims=True)
  return jnp.asarray(points, dtype)


def hoc_loss(
  features_fn: Callable[[types.Params, Any], tuple[types.Array, types.Array]],
  *,
  sharpness: float = 10.0,
  weight: float = 0.1,
) -> bct.Objective:
  r"""Higher-order compatibility: each image near its own old features.

  .. math:: L = \lambda \, \mathrm{CE} - (1 - \lambda) \frac{1}{B} \sum_i
    \log \frac{e^{\mu s_{ii}}}{e^{\mu s_{ii}} +
    \sum_{j: y_j \ne y_i} e^{\mu s_{ij}}},
    \quad s_{ij} = \cos(o_i, n_j)

  Args:
    features_fn: maps (params, inputs) to (features n ``[B, d]``, logits
      ``[B, K]``, by ``simplex``); a ``jax.tree_util.Partial`` may bind arrays.
    sharpness: mu.
    weight: lambda, of the cross-entropy, 0 .. 1.

  Returns:
    A loss of (params, batch, key) for ``wsl.train.advance``; batches are
    (inputs, integer labels, old features o ``[B, d]`` of the same inputs).

  Reference:
    Biondi et al., "Stationary Representations: Optimally Approximating
    Compatibility and Implications for Improved Model Replacements", 2024,
    arXiv:2405.02581.

  Differs from the official code in that similarities within a class are taken
  out of the sum. The code sets them to 0 before the logarithm of the sum of
  exponentials, where each still adds exp(0) = 1, the image's own similarity
  included, so that its loss has no lower bound of 0.
  """
  return jax.tree_util.Partial(
    _hoc, tree.partial(features_fn), sharpness, weight
  )


def _hoc(
  features_fn: Callable[..., tuple[types.Array, types.Array]],
  sharpness: types.Scalar,
  weight: types.Scalar,
  params: types.Params,
  batch: Any,
  key: types.PRNGKey,
) -> types.Array:
  del key
  inputs, labels, old = batch
  new, logits = features_fn(params, inputs)
  old = jnp.asarray(old, new.dtype)
  if old.shape != new.shape:
    raise ValueError(
      f'hoc_loss: new features are {list(new.shape)}, old ones '
      f'{list(old.shape)}: both need the width of one simplex'
    )
  near = sharpness * (tree.unit(old) @ tree.unit(new).T)
  itself = jnp.eye(len(new), dtype=bool)
  kept = (labels[:, None] != labels[None]) | itself
  others = jax.nn.logsumexp(jnp.where(kept, near, -jnp.inf), axis=1)
  contrast = jnp.mean(others - jnp.diagonal(near))
  plain = bct.cross_entropy(logits, labels)
  return weight * plain + (1 - weight) * contrast
