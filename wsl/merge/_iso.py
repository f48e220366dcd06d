"""Isotropic merging: flatten the spectrum of the merged task vector."""

import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _matrices, _stack


def iso_c(
  deltas: types.Deltas, *, matrices: types.Leaves | None = None
) -> types.Delta:
  r"""Gives every direction of the summed task matrix the same singular value.

  .. math:: \sum_t \tau_t = U \Sigma V^\top, \qquad
    \tau = \bar\sigma U V^\top, \qquad
    \bar\sigma = \tfrac{1}{r} \textstyle\sum_{i=1}^{r} \sigma_i

  Other leaves are averaged. It is the same for a matrix and its transpose.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    matrices: which leaves are matrices: a regular expression or a predicate on
      (name, shape); those of two axes if None. A leaf of more axes is seen as
      ``[product of all but the last, last]``.

  Returns:
    The merged task vector, every leaf ``[...]``; it is scaled in
    ``deltas.apply``. One model does not give back that model.

  Raises:
    ValueError: if ``matrices`` chooses no leaf, or one of fewer than two axes.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[[3.0, 0.0], [0.0, 1.0]]])}
    >>> iso_c(deltas)['w'].round(5).tolist()
    [[2.0, 0.0], [0.0, 2.0]]

  Reference:
    Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common
    and Task-Specific Subspaces", 2025, arXiv:2502.04959.

  Differs from the official code in matrices of deficient rank r: directions of
  zero singular value, which are arbitrary, stay zero here, and the mean is over
  the r others. That code raises them as well.
  """
  return _matrices.on_matrices(_iso_c, deltas, matrices)


def iso_cts(
  deltas: types.Deltas,
  *,
  common: float = 0.8,
  matrices: types.Leaves | None = None,
) -> types.Delta:
  r"""Flattens the spectrum over common and task-specific directions.

  With :math:`U_c, V_c` the top ``k_c`` singular vectors of
  :math:`\sum_t \tau_t`, take from each task the top ``s`` triplets of

  .. math:: \tau_t - \tau_t V_c V_c^\top, \qquad s = (\min(m, n) - k_c) / T,

  (V on the side of the outputs), put them beside the common ones, make both
  sides orthonormal by their polar factors, and give all the mean singular
  value:

  .. math:: \tau = \bar\sigma\, [U_1 \dots U_T\, U_c]_\perp
    [V_1 \dots V_T\, V_c]_\perp^\top

  Other leaves are averaged.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``; the last axis of a
      matrix is the output, as in Flax. The method is not the same for the
      transpose: for weights stored ``[out, in]``, transpose the leaves.
    common: the fraction of directions that are common, 0 .. 1; ``k_c`` is
      ``min(m, n)`` less T times the rounded (half to even) share of the rest.
    matrices: which leaves are matrices, as in ``iso_c``.

  Returns:
    The merged task vector, every leaf ``[...]``; it is scaled in
    ``deltas.apply``.

  Raises:
    ValueError: if ``common`` is out of range, or as in ``iso_c``.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[[3.0, 0.0], [0.0, 1.0]]])}
    >>> iso_cts(deltas, common=0.5)['w'].round(5).tolist()
    [[2.0, 0.0], [0.0, 2.0]]

  Reference:
    Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common
    and Task-Specific Subspaces", 2025, arXiv:2502.04959.

  Differs from the official code in singular values that are zero, as ``iso_c``
  does, and in rounding down where T would take more than all directions.
  """
  if not 0 <= common <= 1:
    raise ValueError(
      f'iso_cts(common={common}): the fraction of common directions, expected '
      '0 <= common <= 1'
    )
  return _matrices.on_matrices(
    _iso_cts, deltas, matrices, common=tree.Static(common)
  )


def _iso_c(x: types.Array) -> types.Array:
  u, s, vt = _matrices.svd(_stack.add_up(x))
  real = _matrices.significant(s, x.shape, s[0])
  return _mean(s, real) * ((u * real[None]) @ vt)


def _iso_cts(x: types.Array, *, common: float) -> types.Array:
  rank = min(x.shape[1:])
  each = min(round((rank - int(common * rank)) / len(x)), rank // len(x))
  shared = rank - each * len(x)
  total = _matrices.svd(_stack.add_up(x))
  v = total.vt[:shared]
  own = _matrices.svd(x - (x @ v.T) @ v)
  join = lambda parts, last: jnp.concatenate([*jnp.unstack(parts), last], -1)
  s = join(own.s[:, :each], total.s[:shared])
  u = join(own.u[:, :, :each], total.u[:, :shared])
  v = join(jnp.matrix_transpose(own.vt[:, :each]), v.T)
  # A direction of zero singular value is arbitrary: it is left out.
  real = _matrices.significant(s, x.shape, jnp.max(s))
  sides = _matrices.polar(u * real[None]), _matrices.polar(v * real[None])
  return _mean(s, real) * (sides[0] @ sides[1].T)


def _mean(s: types.Array, real: types.Array) -> types.Array:
  return jnp.sum(s * real) / jnp.maximum(jnp.sum(real), 1)
