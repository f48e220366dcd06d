"""WUDI-Merging: the task vector of least interference, found by Adam."""

from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _stack
from wsl.merge._learned import adam
from wsl.merge._spectral import matrix


@deltas_lib.on_stacks
def wudi(
  deltas: types.Deltas,
  *,
  steps: int = 300,
  rate: Any = 1e-5,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> types.Delta:
  r"""Minimises the interference of the merge with each task, without data.

  .. math:: \tau = \operatorname{Adam}\Big(\min_\tau \sum_t
    \frac{\|(\tau - \tau_t)^\top \tau_t\|_F^2}{\|\tau_t\|_F^2}\Big)
    \quad\text{from}\quad \tau^{(0)} = \sum_t \tau_t,

  for matrices of rows of inputs and columns of outputs: the rows of a task
  vector span inputs of its task, so the difference of the merge to that task
  should vanish on them. Vectors are averaged.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    steps: steps of Adam, ``>= 0``; not traced.
    rate: the learning rate, a number that may be traced. An entry changes by at
      most about ``steps * rate``, whatever its size: the defaults suit task
      vectors of fine-tuned models.
    matrices: which leaves are matrices, and which of their axes are rows
      (inputs) and columns: any of the forms of ``tree.views``. Weights stored
      as ``[out, in]`` need ``tree.torch``.
    otherwise: as in ``iso_c``.

  Returns:
    The merged task vector, every leaf ``[...]``; the authors apply it with the
    coefficient 1.

  Raises:
    ValueError: if ``steps`` or ``rate`` is negative or an array, or as
      ``tree.views``, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> tasks = [[[2.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 3.0]]]
    >>> merged = wudi({'w': jnp.asarray(tasks)}, steps=2000, rate=1e-2)['w']
    >>> [round(x, 2) for x in jnp.diag(merged).tolist()]
    [1.91, 3.0]

  Reference:
    Cheng et al., "Whoever Started the Interference Should End It: Guiding
    Data-Free Model Merging via Task Vectors", 2025, arXiv:2503.08099.

  Differs from the official code in the layout, which is ``[out, in]`` there,
  and for zero task vectors, which have no weight here and are NaN there.
  """
  tree.check_scalars('wudi', remedy='merge groups of leaves', rate=rate)
  _checks.at_least_zero('wudi', 'rate', rate)
  _checks.integer('wudi', 'steps', steps, least=0)
  return matrix.on_matrices(
    'wudi',
    _wudi,
    deltas,
    matrices,
    otherwise,
    steps=tree.Static(steps),
    rate=rate,
  )


def _wudi(x: types.Array, *, steps: int, rate: Any) -> types.Array:
  """Merges ``[T, B, m, n]`` by steps of Adam from the sum of the tasks."""
  # With G_t = tau_t tau_t^T / |tau_t|^2 and G their sum, half the gradient is
  # sum_t G_t (tau - tau_t) = G d + sum_t G_t (tau0 - tau_t) at tau = tau0 + d.
  # The last sum is constant, and exactly 0 for one task.
  transpose = jnp.matrix_transpose
  start = _stack.sum_models(x)
  norms = jnp.sum(jnp.square(x), (-2, -1), keepdims=True)
  scaled = tree.safe_divide(x, norms)
  others = start[None] - x
  gram = _stack.sum_models(tree.matmul(scaled, transpose(x)))
  constant = _stack.sum_models(
    tree.matmul(scaled, tree.matmul(transpose(x), others))
  )
  rate = jnp.asarray(rate).astype(x.dtype)

  def step(i: Any, state: Any) -> Any:
    change, moments = state
    slope = 2 * (tree.matmul(gram, change) + constant)
    direction, moments = adam.step(slope, moments, i)
    return change - rate * direction, moments

  state = jnp.zeros_like(start), adam.start(start)
  change, _ = jax.lax.fori_loop(0, steps, step, state)
  return start + change
