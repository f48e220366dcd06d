"""Recompute the running moments of batch normalisation."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import batches as batches_lib
from wsl import tree, types


def reset_batch_stats(
  update_fn: Callable[[types.Tree, Any], types.Tree],
  batch_stats: types.Tree,
  batches: Iterable[Any],
) -> types.Tree:
  r"""Recomputes running moments as the mean of the moments of all batches.

  The moments of the parents do not describe the activations of a merged model.
  In training mode a model updates them by a moving average of momentum m,

  .. math:: s' = m s + (1 - m) s_{batch} \quad \Rightarrow \quad
    m = \frac{\partial s'}{\partial s}, \quad
    s_{batch} = \frac{s'(0)}{1 - m},

  so the update of any framework yields the moments of each batch. They are
  averaged over all batches in one pass, weighted by batch size.

  Args:
    update_fn: a function ``(batch_stats, inputs) -> batch_stats`` that runs
      the model in training mode and returns the updated moments. In Flax:
      ``lambda s, x: model.apply({'params': p, 'batch_stats': s}, x,
      mutable=['batch_stats'])[1]['batch_stats']``. Bind parameters by
      ``jax.tree_util.Partial(fn, params)`` to compile once for many models.
    batch_stats: the running moments, for their structure; integer leaves
      (counters) are kept.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``; data
      and batch size as in training.

  Returns:
    The moments, of the dtypes of ``batch_stats``.

  Raises:
    ValueError: if there are no batches, a batch is empty, or the moments are
      not updated by a moving average.

  Example:
    >>> import jax.numpy as jnp
    >>> update = lambda s, x: {'mean': 0.9 * s['mean'] + 0.1 * x.mean(0)}
    >>> batches = [jnp.asarray([[1.0], [3.0]]), jnp.asarray([[8.0]])]
    >>> reset_batch_stats(update, {'mean': jnp.zeros(1)}, batches)['mean']
    Array([4.], dtype=...)

  Reference: the reset of batch normalisation of Jordan et al., "REPAIR:
  REnormalizing Permuted Activations for Interpolation Repair", 2022,
  arXiv:2211.08403; the official code gives all batches the same weight.
  """
  update_fn = tree.partial(update_fn)
  for given in (batch_stats, update_fn):
    tree.check_not_narrowed('reset_batch_stats', given)
  leaves, structure = jax.tree.flatten(batch_stats)
  indices = _moment_indices(leaves)
  names = list(tree.named(batch_stats))

  total: list[types.Array] = []
  count = 0
  for batch in batches_lib.stream(batches, name='reset_batch_stats'):
    inputs = batches_lib.inputs_of(batch)
    updated, momenta = _update_and_momenta(update_fn, batch_stats, inputs)
    if not total:
      _check_momenta([names[i] for i in indices], momenta)
    size = jax.tree.leaves(inputs)[0].shape[0]
    parts = [
      size * (tree.wide(s) / (1 - tree.wide(m)))
      for s, m in zip(updated, momenta)
    ]
    total = [a + b for a, b in zip(total, parts)] if total else parts
    count += size
  for i, value in zip(indices, total):
    leaves[i] = (value / count).astype(leaves[i].dtype)
  return jax.tree.unflatten(structure, leaves)


@jax.jit
def _update_and_momenta(
  update_fn: Callable[[types.Tree, Any], types.Tree],
  batch_stats: types.Tree,
  inputs: Any,
) -> tuple[list[types.Array], list[types.Array]]:
  """Returns s'(0) and the momentum of every moment."""
  # The update s' = m s + (1 - m) s_batch is affine in s: its Jacobian-vector
  # product at s = 0 in the direction of ones gives both terms in one pass.
  leaves, structure = jax.tree.flatten(batch_stats)
  indices = _moment_indices(leaves)

  def update(values: list[types.Array]) -> list[types.Array]:
    filled = list(leaves)
    for i, value in zip(indices, values):
      filled[i] = value
    found = update_fn(jax.tree.unflatten(structure, filled), inputs)
    return [jax.tree.leaves(found)[i] for i in indices]

  zeros = [jnp.zeros_like(leaves[i]) for i in indices]
  ones = [jnp.ones_like(leaves[i]) for i in indices]
  return jax.jvp(update, (zeros,), (ones,))


def _check_momenta(names: list[str], momenta: list[types.Array]) -> None:
  """Checks that known momenta are in [0, 1), as in a moving average."""
  for name, momentum in zip(names, momenta):
    if isinstance(momentum, jax.core.Tracer):
      continue
    m = np.asarray(momentum, np.float64)
    if not ((m >= 0) & (m < 1)).all():
      raise ValueError(
        f'reset_batch_stats: update_fn has momentum {m.max():.3g} for '
        f"'{name}', expected at least 0 and below 1: run the model in training "
        'mode'
      )


def _moment_indices(leaves: list[Any]) -> list[int]:
  """Returns the positions of float leaves; integer leaves are counters."""
  return [
    i
    for i, x in enumerate(leaves)
    if jnp.issubdtype(jnp.result_type(x), jnp.floating)
  ]
