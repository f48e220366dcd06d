"""Losses of backward-compatible training: BCT and BT^2.

A gallery of old features stays in use if a new network's features of a class
are close to the old ones. Both losses add to the new task's cross-entropy that
of the old, frozen classifier on the new features. BCT demands this of all new
features, which costs accuracy; BT^2 only of the leading entries after a learned
change of basis.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import batches as batches_lib
from wsl import tree, types
from wsl.stitch._compatible import basis_transform

Objective: TypeAlias = Callable[..., types.Array]


def class_means(
  features: types.ArrayLike, labels: types.ArrayLike, *, classes: int
) -> types.Array:
  r"""Makes a classifier of old features: the mean direction of each class.

  .. math:: w_c = \frac{1}{|c|} \sum_{i \in c} \frac{o_i}{\|o_i\|}

  It covers classes that the old network was not trained on, as long as old
  features of examples are given.

  Args:
    features: old features of training examples, ``[N, d_old]``.
    labels: ``[N]``, integers 0 .. K - 1.
    classes: the number K of classes.

  Returns:
    ``[K, d_old]``; 0 for a class without examples.

  Raises:
    ValueError: if labels are no integers of the examples, or known ones are
      outside of 0 .. K - 1.

  Example:
    >>> import jax.numpy as jnp
    >>> class_means(2 * jnp.eye(2), [1, 1], classes=2).tolist()
    [[0.0, 0.0], [0.5, 0.5]]
  """
  directions = tree.unit(*tree.widen(features))
  tree.check_whole('class_means', classes=classes)
  traced = tree.is_traced(labels)
  known: Any = jnp.asarray(labels) if traced else np.asarray(labels)
  whole = jnp.issubdtype(known.dtype, jnp.integer)
  if not whole or known.shape != directions.shape[:1]:
    raise ValueError(
      f'class_means: labels are {known.dtype}{list(known.shape)}, expected '
      f'integers [{len(directions)}]'
    )
  outside = isinstance(known, np.ndarray) and ((known < 0) | (known >= classes))
  if np.any(outside):
    raise ValueError(f'class_means: labels are not in 0 .. {classes - 1}')
  member = jax.nn.one_hot(jnp.asarray(labels), classes, dtype=directions.dtype)
  counts = jnp.maximum(jnp.sum(member, 0), 1)
  return tree.matmul(member.T, directions) / counts[:, None]


def bct_loss(
  features_fn: Callable[[types.Params, Any], tuple[types.Array, types.Array]],
  old_classifier: types.ArrayLike,
  *,
  weight: float = 10.0,
) -> Objective:
  r"""Makes the loss of backward-compatible training (BCT).

  .. math:: L = \mathrm{CE}(f_\text{new}) +
    \lambda \, \mathrm{CE}(W_\text{old} \bar n)

  where the second term is the mean over the images whose label is a class of
  the old classifier, 0 if there are none, and :math:`\bar n` is the direction
  of the features n.

  Args:
    features_fn: maps (params, inputs) to (features ``[B, d_old]``, logits
      ``[B, K]``); a ``jax.tree_util.Partial`` may bind arrays.
    old_classifier: W_old, ``[K_old, d_old]``, frozen: the old network's, of the
      first K_old classes, or ``class_means`` of old features.
    weight: lambda, of the compatibility term.

  Returns:
    A loss of (params, batch, key) for ``wsl.train.advance``; a batch is
    (inputs, integer labels).

  Reference:
    Shen et al., "Towards Backward-Compatible Representation Learning", 2020,
    arXiv:2003.11942.

  The default weight and ``class_means`` follow the code of BT^2
  (arXiv:2211.03989). Differs from the code of BCT (openBCT), where the old
  classifier is applied to the features themselves, not to their directions, and
  lambda is 1.
  """
  tree.check_scalars('bct_loss', weight=weight)
  return jax.tree_util.Partial(
    _bct, tree.partial(features_fn), jnp.asarray(old_classifier), weight
  )


def bt2_loss(
  features_fn: Callable[
    [types.Params, Any], tuple[types.Array, types.Array, types.Array]
  ],
  old_classifier: types.ArrayLike,
  *,
  weights: tuple[float, float, float] = (1.0, 10.0, 5.0),
) -> Objective:
  r"""Makes the loss of backward-compatible training with basis transformation.

  .. math:: L = \mathrm{CE}(f_\text{new}) + l_1 (1 - \cos(n, n^*)) +
    l_2 \, \mathrm{CE}(W_\text{old} \bar b) + l_3 (1 - \cos(b, o^*))

  where b is the first ``d_old`` entries of ``basis_transform(basis, n, o)``, n*
  the features of an independently trained new network, and o* those of the old
  network, for the same inputs. The third term leaves out labels that the old
  classifier does not have, as ``bct_loss`` does.

  Args:
    features_fn: maps (params, inputs) to (new features n ``[B, d]``, predicted
      old features o ``[B, d_old]``, logits ``[B, K]``); a
      ``jax.tree_util.Partial`` may bind arrays.
    old_classifier: W_old, ``[K_old, d_old]``, frozen.
    weights: ``(l1, l2, l3)``.

  Returns:
    A loss of (params, batch, key) for ``wsl.train.advance``; params are
    ``(network, basis)``, a batch is (inputs, integer labels, n* ``[B, d]``,
    o* ``[B, d_old]``).

  Reference:
    Zhou et al., "BT^2: Backward-compatible Training with Basis
    Transformation", 2022, arXiv:2211.03989.

  Differs from the official code in that it does not smooth labels.
  """
  return jax.tree_util.Partial(
    _bt2, tree.partial(features_fn), jnp.asarray(old_classifier), weights
  )


def _bct(
  features_fn: Callable[..., tuple[types.Array, types.Array]],
  old_classifier: types.Array,
  weight: types.Scalar,
  params: types.Params,
  batch: Any,
  key: types.PRNGKey,
) -> types.Array:
  """Returns the loss of ``bct_loss`` on one batch."""
  del key
  inputs, labels = batch
  features, logits = features_fn(params, inputs)
  old = _compatibility(old_classifier, features, labels)
  losses = batches_lib.cross_entropy(logits, labels, name='bct_loss')
  return jnp.mean(losses) + weight * old


def _bt2(
  features_fn: Callable[..., tuple[types.Array, types.Array, types.Array]],
  old_classifier: types.Array,
  weights: tuple[types.Scalar, types.Scalar, types.Scalar],
  params: tuple[types.Params, basis_transform.Basis],
  batch: Any,
  key: types.PRNGKey,
) -> types.Array:
  """Returns the loss of ``bt2_loss`` on one batch."""
  del key
  inputs, labels, new_target, old_target = batch
  network, basis = params
  new, old, logits = features_fn(network, inputs)
  # The first two terms train n without the old network. The last two constrain
  # b only, whose rotations P and Q are learned too: n need not resemble o*.
  recoded = basis_transform.basis_transform(basis, new, old)
  compatible = recoded[..., : len(basis.outer)]
  l1, l2, l3 = weights
  losses = batches_lib.cross_entropy(logits, labels, name='bt2_loss')
  return (
    jnp.mean(losses)
    + l1 * _cosine_distance(new, new_target)
    + l2 * _compatibility(old_classifier, compatible, labels)
    + l3 * _cosine_distance(compatible, old_target)
  )


def _compatibility(
  classifier: types.Array, features: types.Array, labels: types.Array
) -> types.Array:
  """Returns the frozen old classifier's cross-entropy of feature directions."""
  if classifier.ndim != 2 or features.shape[-1] != classifier.shape[1]:
    raise ValueError(
      f'old_classifier is {list(classifier.shape)} and its features are '
      f'{list(features.shape)}: give [classes, width]'
    )
  # Galleries are searched by cosine, so only directions have to be compatible.
  features = tree.wide(features)
  frozen = jnp.asarray(classifier, features.dtype)
  logits = tree.matmul(tree.unit(features), frozen.T)
  labels = jnp.asarray(labels)
  known = (labels >= 0) & (labels < len(classifier))
  # Unknown labels are replaced before the loss: its NaN there would enter the
  # gradient in spite of a mask after it.
  losses = batches_lib.cross_entropy(
    logits, jnp.where(known, labels, 0), name='bct_loss'
  )
  total = jnp.sum(jnp.where(known, losses, 0))
  return total / jnp.maximum(jnp.sum(known), 1).astype(total.dtype)


def _cosine_distance(x: types.Array, target: types.Array) -> types.Array:
  """Returns one minus the mean cosine of corresponding rows."""
  x = tree.wide(x)
  y = jnp.asarray(target, x.dtype)
  return 1 - jnp.mean(jnp.sum(tree.unit(x) * tree.unit(y), -1))
