"""What ``fit`` minimises: objectives, and a penalty on the coefficients.

An objective is a function of (params, batch, key), built from a model's
``apply_fn``. It is a ``jax.tree_util.Partial``, so that arrays bound to
``apply_fn`` by another ``Partial`` (a frozen head, ``linearise``) are arguments
of the compiled step, and one ``apply_fn`` compiles once. For several heads,
bind each head: ``supervised(jax.tree_util.Partial(apply_fn, head))``.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import batches as batches_lib
from wsl import tree, types

Objective: TypeAlias = Callable[..., types.Array]
ApplyFn: TypeAlias = Callable[[types.Params, Any], types.Array]


def supervised(apply_fn: ApplyFn) -> Objective:
  r"""Builds the mean cross-entropy with integer labels.

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
  r"""Builds the objective that forgets one task and keeps another.

  .. math:: L = -L_\text{target} + L_\text{control}

  It is not bounded below: stop when the control accuracy falls below a floor
  (the paper: 95 % of the zero-shot accuracy) and keep the last coefficients
  above it.

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
  r"""Builds the sum of several objectives, one for each task.

  .. math:: L = \sum_k L_k

  Args:
    objectives: one for each task, each with its own head.

  Returns:
    An objective; a batch is a tuple of one batch for each task. The k-th
    objective's key is ``fold_in(key, k)``.

  Raises:
    ValueError: if there are no objectives, or a batch has another number of
      parts.
  """
  if not objectives:
    raise ValueError('multi_task: no objectives, at least one is needed')
  return jax.tree_util.Partial(
    _multi_task, tuple(tree.partial(objective) for objective in objectives)
  )


def entropy(apply_fn: ApplyFn) -> Objective:
  r"""Builds the mean entropy of the predictions (AdaMerging), without labels.

  .. math:: L = -\frac{1}{B} \sum_x \sum_c p_c \log p_c

  AdaMerging sums it over tasks (``multi_task``), starts at 0.3 and takes 500
  steps of Adam at 1e-3. It can collapse: predicting one class for all inputs
  has entropy 0. If the inputs are the test set, report that with the result.

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


def shrinkage(coefs: Any, *, p: int, weight: types.Scalar = 0.5) -> types.Array:
  r"""Penalises the p-norm of each block's coefficients over the vectors.

  .. math:: \gamma \frac{1}{m} \sum_{j=1}^{m} \lVert \lambda_{\cdot j} \rVert_p

  Bind ``p`` by ``functools.partial`` and pass it to ``fit`` as ``penalty``.
  p = 1 (lasso) shrinks single coefficients to zero, p = 2 (group lasso) those
  of a whole block, for all vectors at once. A norm is not differentiable at
  zero; the gradient there is zero here, so that a fit may start at zero.

  Args:
    coefs: any tree, leaves ``[T]`` or ``[T, cells...]``, where each cell is a
      block; or ``[]``, a number that all vectors share, which is counted once.
    p: 1 or 2.
    weight: gamma, 0 or more; 0.5 in the paper.

  Returns:
    A number, ``[]``.

  Raises:
    ValueError: if p is neither 1 nor 2, or there are no coefficients.

  Example:
    >>> import jax.numpy as jnp
    >>> coefs = {'w': jnp.asarray([3.0, -4.0]), 'b': jnp.asarray([0.0, 0.0])}
    >>> [shrinkage(coefs, p=p, weight=1.0).item() for p in (1, 2)]
    [3.5, 2.5]

  Reference:
    Zhang et al., "Knowledge Composition using Task Vectors with Learned
    Anisotropic Scaling", 2024, arXiv:2407.02880, on task addition.
  """
  tree.check_scalars('shrinkage', weight=weight)
  if p not in (1, 2):
    raise ValueError(f'shrinkage(p={p}): expected 1 or 2')
  leaves = jax.tree.leaves(coefs)
  if not leaves:
    raise ValueError('shrinkage: there are no coefficients')
  return tree.apply_kernel(_penalty, *leaves, p=tree.Static(p), weight=weight)


def _penalty(*leaves: types.Array, p: int, weight: Any) -> types.Array:
  """Averages the norms of all blocks, in their widest dtype."""
  norms = [_norms(jnp.asarray(x), p) for x in leaves]
  dtype = jnp.result_type(*norms)
  total = sum(jnp.sum(x.astype(dtype)) for x in norms)
  blocks = sum(x.size for x in norms)
  return jnp.asarray(weight, dtype) * total / np.asarray(blocks, dtype)


def _norms(x: types.Array, p: int) -> types.Array:
  """Returns the norm of each block, ``[cells...]``."""
  x = tree.wide(jnp.atleast_1d(x))
  if p == 1:
    # JAX gives jnp.abs the gradient 1 at 0; x sign(x) has 0 there.
    return jnp.sum(x * jnp.sign(x), axis=0)
  # sqrt has an infinite slope at 0, and inf * 0 is NaN in the chain rule: take
  # the root of 1 where the sum is 0, and select 0 afterwards.
  squares = jnp.sum(x * x, axis=0)
  is_zero = squares == 0
  root = jnp.sqrt(jnp.where(is_zero, jnp.ones_like(squares), squares))
  return jnp.where(is_zero, jnp.zeros_like(root), root)


def log_softmax(logits: types.Array) -> types.Array:
  """Returns log-probabilities in float32 or wider."""
  return jax.nn.log_softmax(tree.wide(logits))


def _supervised(
  apply_fn: ApplyFn, params: types.Params, batch: Any, key: types.PRNGKey
) -> types.Array:
  """Returns the mean cross-entropy of a batch (inputs, labels)."""
  del key
  inputs, labels = batch
  return jnp.mean(
    batches_lib.cross_entropy(
      apply_fn(params, inputs), labels, name='supervised'
    )
  )


def _negation(
  apply_fn: ApplyFn,
  control_fn: ApplyFn,
  params: types.Params,
  batch: Any,
  key: types.PRNGKey,
) -> types.Array:
  """Returns the control task's loss minus the target's."""
  target, control = batch
  held = _supervised(control_fn, params, control, key)
  return held - _supervised(apply_fn, params, target, key)


def _multi_task(
  objectives: tuple[Objective, ...],
  params: types.Params,
  batch: Any,
  key: types.PRNGKey,
) -> types.Array:
  """Returns the sum of the tasks' losses, each with its part and key."""
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
  """Returns the mean entropy of the predicted distributions."""
  del key
  log_p = log_softmax(apply_fn(params, batch))
  return -jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, axis=-1))
