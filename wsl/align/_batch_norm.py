"""Reset the running moments of batch normalisation."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


def reset_batch_stats(
  update_fn: Callable[[types.Tree, Any], types.Tree],
  batch_stats: types.Tree,
  batches: Iterable[Any],
) -> types.Tree:
  r"""Recomputes running moments as the mean of those of all batches.

  A merged model needs its own: those of its parents describe activations that
  it does not have. In training mode a model updates them by a moving average
  with some momentum m,

  .. math:: s' = m s + (1 - m) s_{batch} \quad \Rightarrow \quad
    m = \frac{\partial s'}{\partial s}, \quad
    s_{batch} = \frac{s'(0)}{1 - m},

  so the moments of each batch are had from any framework's own update, and are
  averaged over all batches, weighted by their sizes, in one pass.

  Args:
    update_fn: a function ``(batch_stats, inputs) -> batch_stats`` that runs
      the model in training mode and returns the updated moments. In Flax:
      ``lambda s, x: model.apply({'params': p, 'batch_stats': s}, x,
      mutable=['batch_stats'])[1]['batch_stats']``. Bind parameters by
      ``jax.tree_util.Partial(fn, params)`` to compile once for many of them.
    batch_stats: the running moments, for their structure; integer leaves
      (counters) stay as they are.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``, as the
      model was trained on, of the size it was trained with.

  Returns:
    The moments, of the dtypes of ``batch_stats``.

  Raises:
    ValueError: if there are no batches, or the moments are not updated by a
      moving average.

  Example:
    >>> import jax.numpy as jnp
    >>> update = lambda s, x: {'mean': 0.9 * s['mean'] + 0.1 * x.mean(0)}
    >>> batches = [jnp.asarray([[1.0], [3.0]]), jnp.asarray([[8.0]])]
    >>> reset_batch_stats(update, {'mean': jnp.zeros(1)}, batches)['mean']
    Array([4.], dtype=...)

  Reference: the reset of batch normalisation of Jordan et al., "REPAIR:
  REnormalizing Permuted Activations for Interpolation Repair", 2022,
  arXiv:2211.08403; the official code weighs all batches alike.
  """
  update_fn = tree.partial(update_fn)
  leaves, structure = jax.tree.flatten(batch_stats)
  real = _real(leaves)
  names = list(tree.named(batch_stats))

  total: list[types.Array] = []
  count = 0
  for batch in batches:
    inputs = batch[0] if isinstance(batch, tuple) else batch
    updated, momenta = _moments(update_fn, batch_stats, inputs)
    if not total:
      _check([names[i] for i in real], momenta)
    size = jax.tree.leaves(inputs)[0].shape[0]
    parts = [
      size * (tree.wide(s) / (1 - tree.wide(m)))
      for s, m in zip(updated, momenta)
    ]
    total = [a + b for a, b in zip(total, parts)] if total else parts
    count += size
  if not count:
    raise ValueError(
      'reset_batch_stats: no batches given, at least one is needed'
    )
  for i, value in zip(real, total):
    leaves[i] = (value / count).astype(leaves[i].dtype)
  return jax.tree.unflatten(structure, leaves)


@jax.jit
def _moments(
  update_fn: Callable[[types.Tree, Any], types.Tree],
  batch_stats: types.Tree,
  inputs: Any,
) -> tuple[list[types.Array], list[types.Array]]:
  """Returns s'(0) and the momentum of every moment."""
  leaves, structure = jax.tree.flatten(batch_stats)
  real = _real(leaves)

  def update(values: list[types.Array]) -> list[types.Array]:
    filled = list(leaves)
    for i, value in zip(real, values):
      filled[i] = value
    found = update_fn(jax.tree.unflatten(structure, filled), inputs)
    return [jax.tree.leaves(found)[i] for i in real]

  zeros = [jnp.zeros_like(leaves[i]) for i in real]
  ones = [jnp.ones_like(leaves[i]) for i in real]
  return jax.jvp(update, (zeros,), (ones,))


def _check(names: list[str], momenta: list[types.Array]) -> None:
  for name, momentum in zip(names, momenta):
    m = np.asarray(momentum, np.float64)
    if not ((m >= 0) & (m < 1)).all():
      raise ValueError(
        f'reset_batch_stats: update_fn keeps {m.max():.3g} of the old value of '
        f"'{name}', expected a share of at least 0 and below 1: run the model "
        'in training mode'
      )


def _real(leaves: list[Any]) -> list[int]:
  """Returns which leaves are moments; the others are counters."""
  return [
    i
    for i, x in enumerate(leaves)
    if jnp.issubdtype(jnp.result_type(x), jnp.floating)
  ]
