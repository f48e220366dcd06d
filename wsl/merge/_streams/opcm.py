"""OPCM: each new model orthogonal to the merge of those before it."""

from typing import Any, NamedTuple, TYPE_CHECKING

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _checks
from wsl.merge._spectral import matrix
from wsl.merge._streams import arrivals

if TYPE_CHECKING:
  import optax


class OpcmState(NamedTuple):
  """What OPCM keeps of all models so far; ``checkpoint.save_run`` stores it.

  Attributes:
    merged: the merged task vector, leaves ``[...]`` in float32 or wider.
    scale: lambda, the factor by which the last sum was divided.
    norm: N, the mean norm of the task vectors.
    models: t, their number.
  """

  merged: types.Delta
  scale: types.Array
  norm: types.Array
  models: types.Array


def opcm(
  *,
  alpha: Any = 0.5,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> 'optax.GradientTransformation':
  r"""Merges models one after another, each projected before it is added.

  .. math:: \tau \leftarrow \frac{\lambda_{t-1} \tau + \tilde\tau_t}{\lambda_t},
    \qquad \tilde\tau_t = U \big(M_s \odot U^\top \tau_t V\big) V^\top
    \quad\text{with}\quad \tau = U \Sigma V^\top

  for matrices; other leaves are added as they are. M_s is 0 on the diagonal and
  on the leading s x s block, and 1 elsewhere, so that
  :math:`\langle \tilde\tau_t, \tau \rangle = 0`. The leading s singular values
  have at most the share alpha of their sum. :math:`\lambda_t` gives the merge
  the mean norm of the task vectors, :math:`\|\tau\| = N_t = \tfrac1t \sum_i
  \|\tau_i\|` over all leaves.

  The memory does not grow with the number of models: task vector t is the
  "gradient" of step t. The order of the models matters; ``order_sensitivity``
  measures how much.

  Args:
    alpha: the share of singular values, ``>= 0``, a number that may be traced.
      At 1 the block is the whole matrix; above 1 there is no block, as in the
      official code.
    matrices: which leaves are matrices, as in ``tree.views``; the side of
      inputs does not matter.
    otherwise: leaves of more than two axes without a rule, as in
      ``tree.views``: ``'refuse'``, or ``'mean'``, which adds them.

  Returns:
    A transformation. ``init(base)`` returns an ``OpcmState``; ``update(tau,
    state)`` returns the change of the merge and the new state, so that
    ``optax.apply_updates`` keeps a merged model. ``state.merged`` is exact:
    ``deltas.apply(base, state.merged)`` is not rounded in each step.

  Raises:
    ValueError: if ``alpha`` is negative; from ``update``, if a task vector does
      not fit the state, or as ``tree.views``, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> stream = opcm(alpha=0.5)
    >>> state = stream.init({'w': jnp.zeros((2, 2))})
    >>> for tau in (jnp.diag(jnp.asarray([3.0, 1.0])), jnp.ones((2, 2))):
    ...   _, state = stream.update({'w': tau}, state)
    >>> [round(float(x), 3) for x in state.merged['w'].reshape(-1)]
    [2.235, 0.745, 0.745, 0.745]

  Reference:
    Tang et al., "Merging Models on the Fly Without Retraining: A Sequential
    Approach to Scalable Continual Model Merging", 2025, arXiv:2501.09522.

  Differs from the official code at alpha = 1, where that code has no block up
  to rounding; for zero singular values of the merge, whose vectors are
  arbitrary and are not projected out here; and for a first task vector of zero,
  which is NaN there. An early release of that code did not zero the diagonal.
  """
  tree.check_scalars('opcm', alpha=alpha)
  _checks.at_least_zero('opcm', 'alpha', alpha)

  def init(params: types.Params) -> OpcmState:
    merged = arrivals.zeros('opcm', params)
    wide = tree.wide_dtype(*jax.tree.leaves(merged))
    one = jnp.ones((), jnp.zeros((), wide).real.dtype)
    return OpcmState(merged, one, 0 * one, jnp.zeros((), jnp.int32))

  def update(
    updates: types.Delta, state: OpcmState, params: types.Params | None = None
  ) -> tuple[types.Delta, OpcmState]:
    del params
    new = arrivals.arrived('opcm', updates, state.merged)
    pair = tree.stack([state.merged, new])
    projected = matrix.on_matrices(
      'opcm', _projected, pair, matrices, otherwise, vectors=_last, alpha=alpha
    )
    dtype = state.norm.dtype
    norm_of = lambda x: jnp.asarray(tree.norm(x)).astype(dtype)
    count = state.models + 1
    norm = state.norm + (norm_of(new) - state.norm) / count.astype(dtype)
    added = jax.tree.map(
      lambda x, y: state.scale.astype(x.dtype) * x + y, state.merged, projected
    )
    length = norm_of(added)
    factor = tree.safe_divide(norm, length)
    merged = jax.tree.map(lambda x: factor.astype(x.dtype) * x, added)
    scale = jnp.where(factor > 0, tree.safe_divide(length, norm), 1)
    change = jax.tree.map(jnp.subtract, merged, state.merged)
    return change, OpcmState(merged, scale, norm, count)

  return arrivals.transformation(init, update)


def _last(x: types.Array) -> types.Array:
  """Returns the second of two models."""
  return x[1]


def _projected(x: types.Array, *, alpha: Any) -> types.Array:
  """Projects the second of ``[2, B, m, n]`` by the SVD of the first."""
  merged, new = x[0], x[1]
  u, s, vt = tree.svd(merged)
  real = tree.significant(s, merged.shape, s[..., :1])
  size = s.shape[-1]
  sums = jnp.cumsum(s, -1)
  alpha = jnp.asarray(alpha).astype(s.dtype)
  over = sums > alpha * sums[..., -1:]
  none = jnp.where(alpha > 1, 0, size)
  cut = jnp.where(jnp.any(over, -1), jnp.argmax(over, -1), none)
  inside = (jnp.arange(size)[None] < cut[:, None]).astype(s.dtype)
  block = inside[..., :, None] * inside[..., None, :]
  both = jnp.maximum(block, jnp.eye(size, dtype=s.dtype)[None])
  both = both * real[..., :, None] * real[..., None, :]
  # Entries outside of the span of U and V keep their value, as the full
  # matrices of singular vectors would: subtract what M_s makes zero.
  left, right = jnp.matrix_transpose(u), jnp.matrix_transpose(vt)
  removed = both * tree.matmul(left, tree.matmul(new, right))
  return new - tree.matmul(u, tree.matmul(removed, vt))
