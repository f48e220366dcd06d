"""The d-Simplex: a fixed classifier, shared by models of different training.

Cross-entropy drives the class means of features to a regular simplex (neural
collapse), up to a rotation that differs between trainings. A classifier that is
fixed to one simplex fixes the rotation, so that all models are comparable.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import batches as batches_lib
from wsl import tree, types
from wsl.stitch._compatible import bct


def simplex(
  classes: int, *, dtype: jax.typing.DTypeLike = jnp.float32
) -> types.Array:
  r"""Returns the vertices of a regular simplex, one direction for each class.

  .. math:: \|w_i\| = 1, \quad w_i^\top w_j = -\frac{1}{K - 1} \; (i \ne j),
    \quad \sum_i w_i = 0

  Networks that are trained with these rows as frozen last layer, even on
  different data, learn the same direction for each class. Choose K larger than
  the present number of classes: unused rows reserve directions for later ones.

  Args:
    classes: K, at least 2; the width of the features is ``K - 1``.
    dtype: dtype of the result; computed in float64.

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
    (which reserves 1024 classes).
  """
  tree.check_whole('simplex', classes=classes)
  tree.output_dtype('simplex', (), dtype)
  if classes < 2:
    raise ValueError(f'simplex: classes={classes}: expected 2 or more')
  width = classes - 1
  # The K - 1 unit vectors have mutual distance sqrt(2). The point a (1, ..., 1)
  # has it from all of them if (a - 1)^2 + (K - 2) a^2 = 2, that is
  # (K - 1) a^2 - 2 a - 1 = 0, whose root of negative sign is
  # a = (1 - sqrt(K)) / (K - 1). All vertices have equal norm once centred, and
  # K equal-norm vectors with sum 0 and equal products have products
  # -1 / (K - 1), for 0 = w_i . sum_j w_j = 1 + (K - 1) w_i . w_j.
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
  r"""Makes the loss of higher-order compatibility with old features (HOC).

  .. math:: L = \lambda \, \mathrm{CE} - (1 - \lambda) \frac{1}{B} \sum_i
    \log \frac{e^{\mu s_{ii}}}{e^{\mu s_{ii}} +
    \sum_{j: y_j \ne y_i} e^{\mu s_{ij}}},
    \quad s_{ij} = \cos(o_i, n_j)

  The second term is contrastive (InfoNCE): the new features n_i of an example
  are pulled towards its old features o_i, relative to other classes' n_j.

  Args:
    features_fn: maps (params, inputs) to (features n ``[B, d]``, logits
      ``[B, K]``, by ``simplex``); a ``jax.tree_util.Partial`` may bind arrays.
    sharpness: mu, the inverse temperature.
    weight: lambda, the weight of the cross-entropy, 0 .. 1.

  Returns:
    A loss of (params, batch, key) for ``wsl.train.advance``; a batch is
    (inputs, integer labels, old features o ``[B, d]`` of the same inputs).

  Reference:
    Biondi et al., "Stationary Representations: Optimally Approximating
    Compatibility and Implications for Improved Model Replacements", 2024,
    arXiv:2405.02581.

  Differs from the official code in that similarities within a class are left
  out of the sum. The code sets them to 0 before the log-sum-exp, where each
  still adds exp(0) = 1. It does so for s_ii too, hence its loss can be
  negative.
  """
  tree.check_scalars('hoc_loss', sharpness=sharpness, weight=weight)
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
  """Returns the loss of ``hoc_loss`` on one batch."""
  del key
  inputs, labels, old = batch
  new, logits = features_fn(params, inputs)
  new = tree.wide(new)
  old = jnp.asarray(old, new.dtype)
  if old.shape != new.shape:
    raise ValueError(
      f'hoc_loss: new features are {list(new.shape)}, old ones '
      f'{list(old.shape)}: both need the width of one simplex'
    )
  scores = sharpness * tree.matmul(tree.unit(old), tree.unit(new).T)
  positive = jnp.eye(len(new), dtype=bool)
  kept = (labels[:, None] != labels[None]) | positive
  normaliser = jax.nn.logsumexp(jnp.where(kept, scores, -jnp.inf), axis=1)
  contrastive = jnp.mean(normaliser - jnp.diagonal(scores))
  supervised = jnp.mean(
    batches_lib.cross_entropy(logits, labels, name='hoc_loss')
  )
  return weight * supervised + (1 - weight) * contrastive
