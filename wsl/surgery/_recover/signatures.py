"""Robust Weight Signatures: what training on corrupted data adds."""

import jax.numpy as jnp

from wsl import tree, types


def robust_signatures(deltas: types.Deltas, clean: types.Delta) -> types.Deltas:
  r"""Removes from task vectors the direction of training on clean data.

  .. math:: \rho_c = d_c - \frac{\langle d_c, a \rangle}{\langle a, a \rangle} a

  in each leaf, where d_c is the task vector of training on corruption c and a
  that of training on clean data. Added to the clean model, signatures patch it
  against their corruptions: ``deltas.apply(clean_model,
  merge.sum(signatures))``. Subtracting them again restores it.

  Give the leaves of the shallowest layers only, as the authors do (7 of VGG-16
  and of ResNet-50), and recompute running statistics after a patch.

  Args:
    deltas: task vectors of C corruptions, every leaf ``[C, ...]``, relative to
      the pretrained model.
    clean: the task vector of clean data, every leaf ``[...]``. Where it is
      zero, nothing is removed.

  Returns:
    The signatures, every leaf ``[C, ...]``.

  Raises:
    ValueError: if the trees differ, or a leaf's shape does not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[3.0, 4.0], [2.0, 0.0]])}
    >>> robust_signatures(deltas, {'w': jnp.asarray([1.0, 0.0])})['w'].tolist()
    [[0.0, 4.0], [0.0, 0.0]]

  Reference:
    Cai et al., "Robust Weight Signatures: Gaining Robustness as Easy as
    Patching Weights?", 2023, arXiv:2302.12480.

  Differs from the official code, which multiplies by the coefficient before and
  after the projection, so that it is squared, and divides by zero where a leaf
  did not change.
  """
  clean = tree.conform('robust_signatures: clean', clean, 'deltas', deltas)
  shapes = tree.named(deltas)
  for name, leaf in tree.named(clean).items():
    if tuple(leaf.shape) != tuple(shapes[name].shape[1:]):
      raise ValueError(
        f"robust_signatures: leaf '{name}' of clean has shape "
        f'{tuple(leaf.shape)}, of deltas {tuple(shapes[name].shape)}: expected '
        'one more axis there, that of the corruptions'
      )
    if not tree.is_float(leaf):
      raise ValueError(
        f"robust_signatures: leaf '{name}' is {leaf.dtype}: give task vectors "
        'of deltas.stack, which leaves integers out'
      )
  return tree.map(_orthogonal, deltas, clean)


def _orthogonal(x: types.Array, a: types.Array) -> types.Array:
  """Projects ``[C, ...]`` on the complement of ``[...]``."""
  wide = tree.wide_dtype(x, a)
  rows, line = x.reshape(len(x), -1).astype(wide), a.reshape(-1).astype(wide)
  # Scaled to entries of at most 1, so that squares neither vanish nor overflow.
  line = tree.safe_divide(line, jnp.max(jnp.abs(line), initial=0))
  along = tree.safe_divide(
    tree.matmul(rows, jnp.conj(line)), tree.matmul(jnp.conj(line), line)
  )
  return (rows - along[:, None] * line[None]).reshape(x.shape).astype(x.dtype)
