"""Objectives: functions of (params, batch, key), made from a model's function.

Each is a ``jax.tree_util.Partial``, so that arrays bound to ``apply_fn`` by
another ``Partial`` (a frozen head, ``linearise``) are arguments of a compiled
step, and the same ``apply_fn`` compiles once. For one objective of many heads,
bind the head: ``supervised(jax.tree_util.Partial(apply_fn, head))``.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types

Objective: TypeAlias = Callable[..., types.Array]
ApplyFn: TypeAlias = Callable[[types.Params, Any], types.Array]


def supervised(apply_fn: ApplyFn) -> Objective:
  r"""Cross-entropy with labels.

  .. math:: L = -\frac{1}{B} \sum_{x, y} \log p_\theta(y \mid x)

  Args:
    apply_fn: maps (params, inputs) to logits ``[B, ..., classes]``.

  Returns:
    An objective; batches are (inputs, integer labels ``[B, ...]``).

  Example:
    >>> import jax, jax.numpy as jnp
    >>> loss = supervised(lambda p, x: x * p)
    >>> batch = (jnp.eye(2), jnp.asarray([0, 1]))
    >>> print(f'{loss(jnp.zeros((1, 2)), batch, jax.random.key(0)):.4f}')
    0.6931
  """
  return jax.tree_util.Partial(_supervised, tree.partial(apply_fn))


def negation(apply_fn: ApplyFn, control_fn: ApplyFn) -> Objective:
  r"""Drives one task's loss up while another's is held down.

  .. math:: L = -L_\text{target} + L_\text{control}

  It has no minimum: stop when the control accuracy falls below its floor (the
  paper: 95 % of the zero-shot one) and keep the last coefficients above it.

  Args:
    apply_fn: maps (params, inputs) to the target's logits.
    control_fn: the same for the control task, with its own head.

  Returns:
    An objective; batches are (target batch, control batch), each (inputs,
    labels).

  Reference:
    Zhang et al., 2024, arXiv:2407.02880, section 4.
  """
  return jax.tree_util.Partial(
    _negation, tree.partial(apply_fn), tree.partial(control_fn)
  )


def multi_task(objectives: Sequence[Objective]) -> Objective:
  r"""Adds objectives up, one for each task.

  .. math:: L = \sum_k L_k

  Args:
    objectives: one for each task, each with its own head.

  Returns:
    An objective; batches are tuples of as many batches. The k-th objective's
    key is ``fold_in(key, k)``.

  Raises:
    ValueError: if there are no objectives, or a batch has not as many parts.
  """
  if not objectives:
    raise ValueError('multi_task: no objectives, at least one is needed')
  return jax.tree_util.Partial(
    _multi_task, tuple(tree.partial(objective) for objective in objectives)
  )


def entropy(apply_fn: ApplyFn) -> Objective:
  r"""Mean entropy of the predictions: AdaMerging, without labels.

  .. math:: L = -\frac{1}{B} \sum_x \sum_c p_c \log p_c

  AdaMerging sums it over tasks (``multi_task``), starts at 0.3 and takes 500
  steps of Adam at 1e-3. It can collapse: one class for all inputs has entropy
  0. If the inputs are those of the test, say so with the result.

  Args:
    apply_fn: maps (params, inputs) to logits ``[B, ..., classes]``.

  Returns:
    An objective; batches are inputs.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> loss = entropy(lambda p, x: x * p)
    >>> print(f'{loss(jnp.zeros((1, 2)), jnp.eye(2), jax.random.key(0)):.4f}')
    0.6931

  Reference:
    Yang et al., "AdaMerging: Adaptive Model Merging for Multi-Task Learning",
    2023, arXiv:2310.02575.

  Differs from the official code, which clamps coefficients to [0, 1] in the
  forward pass: give ``box`` to ``fit`` as ``project``.
  """
  return jax.tree_util.Partial(_entropy, tree.partial(apply_fn))


def log_softmax(logits: types.Array) -> types.Array:
  """Returns log-probabilities in float32 or wider."""
  return jax.nn.log_softmax(tree.wide(logits))


def cross_entropy(logits: types.Array, labels: types.Array) -> types.Array:
  """Returns the loss of each example, ``[B, ...]``, of integer labels."""
  labels = jnp.asarray(labels)
  if logits.shape[:-1] != labels.shape or not jnp.issubdtype(
    labels.dtype, np.integer
  ):
    raise ValueError(
      f'supervised: logits {logits.shape} need integer labels of shape '
      f'{logits.shape[:-1]}, got {labels.dtype}{list(labels.shape)}'
    )
  picked = jnp.take_along_axis(log_softmax(logits), labels[..., None], axis=-1)
  return -picked[..., 0]


def _supervised(
  apply_fn: ApplyFn, params: types.Params, batch: Any, key: types.PRNGKey
) -> types.Array:
  del key
  inputs, labels = batch
  return jnp.mean(cross_entropy(apply_fn(params, inputs), labels))


def _negation(
  apply_fn: ApplyFn,
  control_fn: ApplyFn,
  params: types.Params,
  batch: Any,
  key: types.PRNGKey,
) -> types.Array:
  target, control = batch
  held = _supervised(control_fn, params, control, key)
  return held - _supervised(apply_fn, params, target, key)


def _multi_task(
  objectives: tuple[Objective, ...],
  params: types.Params,
  batch: Any,
  key: types.PRNGKey,
) -> types.Array:
  if len(batch) != len(objectives):
    raise ValueError(
      f'multi_task: {len(objectives)} objectives and a batch of {len(batch)} '
      'parts: give one part for each'
    )
  losses = [
    objective(params, part, jax.random.fold_in(key, k))
    for k, (objective, part) in enumerate(zip(objectives, batch))
  ]
  return jnp.sum(jnp.stack(losses))


def _entropy(
  apply_fn: ApplyFn, params: types.Params, batch: Any, key: types.PRNGKey
) -> types.Array:
  del key
  log_p = log_softmax(apply_fn(params, batch))
  return -jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, axis=-1))
