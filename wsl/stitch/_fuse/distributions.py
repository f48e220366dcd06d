"""Distributions of source networks, in the vocabulary of a target."""

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


def transfer_probabilities(
  probabilities: types.Array,
  aligned: types.Array,
  vocabulary: types.Array,
  labels: types.Array,
  *,
  size: int,
) -> types.Array:
  r"""Writes a source's distributions in the vocabulary of a target.

  .. math:: P_{n}(v) \propto \sum_{u : m(u) = v} Q_{a(n)}(u)

  where a target token has one equal source token a(n); elsewhere, and where no
  token with mass is in the target's vocabulary, P is 1 at the label.

  Args:
    probabilities: Q, ``[S, V_s]``: row s is the distribution from which token s
      was to be drawn. Zeros stand for those that were not stored, such as all
      but the ten largest.
    aligned: a, ``[N]``, from ``align_tokens``.
    vocabulary: m, ``[V_s]``, from ``map_vocabulary``.
    labels: the target's tokens, ``[N]``.
    size: V_t, the size of the target's vocabulary.

  Returns:
    P, ``[N, V_t]``, each row of sum 1, in float32 or wider.

  Example:
    >>> import jax.numpy as jnp
    >>> q = jnp.asarray([[0.5, 0.3, 0.2]])
    >>> a, m = jnp.asarray([0, -1]), jnp.asarray([1, -1, 0])
    >>> p = transfer_probabilities(q, a, m, jnp.asarray([1, 0]), size=2)
    >>> p.round(2).tolist()
    [[0.29, 0.71], [1.0, 0.0]]

  Reference:
    Wan et al., "Knowledge Fusion of Large Language Models", 2024,
    arXiv:2401.10491.

  Differs from the official code where two source tokens are one of the target:
  it keeps the first.
  """
  found: types.Array = tree.apply_kernel(
    _transferred,
    *map(jnp.asarray, (probabilities, aligned, vocabulary, labels)),
    size=tree.Static(size),
  )
  return found


def fuse_probabilities(
  probabilities: types.Array,
  labels: types.Array,
  *,
  combine: str = 'min',
  mask: types.Array | None = None,
) -> types.Array:
  r"""Combines the distributions of K sources for one text.

  .. math:: C_k = -\frac{1}{N} \sum_n \log P_{k,n}(y_n), \qquad
    P = P_{\arg\min_k C_k} \quad \text{or} \quad
    P = \frac{\sum_k e^{-C_k} P_k}{\sum_k e^{-C_k}}

  Args:
    probabilities: of K sources, ``[K, N, V]``.
    labels: y, ``[N]``.
    combine: ``'min'``, the source of least cross-entropy (MinCE), or
      ``'mean'``, their mean by reward (AvgCE).
    mask: 1 for tokens that count, such as those of the response, ``[N]``.

  Returns:
    P, ``[N, V]``. Several texts are mapped by ``jax.vmap``.

  Raises:
    ValueError: if ``combine`` is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> p = jnp.asarray([[[0.9, 0.1]], [[0.2, 0.8]]])
    >>> fuse_probabilities(p, jnp.asarray([1])).round(1).tolist()
    [[0.2, 0.8]]

  Reference:
    Wan et al., 2024, arXiv:2401.10491; Zhang et al., "Unconstrained Model
    Merging for Enhanced LLM Reasoning", 2024, arXiv:2410.13699.
  """
  if combine not in ('min', 'mean'):
    hint = tree.nearest(str(combine), ['min', 'mean'])
    raise ValueError(
      f"fuse_probabilities(combine={combine!r}): expected 'min' or 'mean'{hint}"
    )
  tokens = np.shape(probabilities)[1]
  mask = _of_tokens('fuse_probabilities', mask, tokens)
  operands = (jnp.asarray(probabilities), jnp.asarray(labels))
  found: types.Array = tree.apply_kernel(
    _fused, *operands, combine=combine, mask=mask
  )
  return found


def fusion_loss(
  logits: types.Array,
  labels: types.Array,
  fused: types.Array,
  *,
  share: types.Scalar = 0.9,
  mask: types.Array | None = None,
) -> types.Array:
  r"""Returns the loss of a target that learns a text and its sources.

  .. math:: L = \lambda \frac{1}{N} \sum_n -\log p_n(y_n)
    + (1 - \lambda) \frac{1}{N} \sum_n \operatorname{KL}(P_n \,\|\, p_n)

  Args:
    logits: of the target, ``[N, V]``: row n predicts token n.
    labels: y, ``[N]``.
    fused: P, ``[N, V]``, from ``fuse_probabilities``; it has no gradient.
    share: lambda, 0 .. 1; may be traced.
    mask: 1 for tokens that count, ``[N]``.

  Returns:
    A number; the loss of a batch is the mean over ``jax.vmap``.

  Raises:
    ValueError: if ``share`` is out of range, or the mask is not ``[N]``.

  Example:
    >>> import jax.numpy as jnp
    >>> logits, fused = jnp.zeros((1, 2)), jnp.asarray([[0.5, 0.5]])
    >>> round(float(fusion_loss(logits, jnp.asarray([0]), fused)), 4)
    0.6238

  Reference:
    Wan et al., 2024, arXiv:2401.10491; Zhang et al., 2024, arXiv:2410.13699.
  """
  tree.check_scalars('fusion_loss', share=share)
  if not tree.is_traced(share) and not 0 <= share <= 1:
    raise ValueError(f'fusion_loss: share={share}, expected 0 .. 1')
  mask = _of_tokens('fusion_loss', mask, logits.shape[0])
  operands = (jnp.asarray(x) for x in (logits, labels, fused))
  found: types.Array = tree.apply_kernel(
    _loss, *operands, share=share, mask=mask
  )
  return found


def _of_tokens(
  function: str, mask: types.ArrayLike | None, tokens: int
) -> types.Array | None:
  """Returns the mask of tokens ``[N]``, after a check of its shape."""
  if mask is None:
    return None
  if np.shape(mask) != (tokens,):
    raise ValueError(
      f'{function}: mask has shape {np.shape(mask)}, expected ({tokens},)'
    )
  return jnp.asarray(mask)


def _mean(x: types.Array, mask: types.Array | None) -> types.Array:
  """Averages ``[N]`` over the tokens that count."""
  if mask is None:
    return jnp.mean(x)
  mask = mask.astype(x.dtype)
  return tree.safe_divide(jnp.sum(mask * x), jnp.sum(mask))


def _transferred(
  probabilities: types.Array,
  aligned: types.Array,
  vocabulary: types.Array,
  labels: types.Array,
  *,
  size: int,
) -> types.Array:
  """Returns the distributions ``[N, V_t]`` of ``transfer_probabilities``."""
  q = tree.wide(probabilities)
  # Index V_t, one beyond the vocabulary, collects what the target has not.
  place = jnp.where(vocabulary < 0, size, vocabulary)
  rows = jnp.zeros((len(q), size + 1), q.dtype).at[:, place].add(q)[:, :size]
  mass = jnp.sum(rows, -1, keepdims=True)
  rows = tree.safe_divide(rows, jnp.broadcast_to(mass, rows.shape))
  known = (aligned >= 0) & (mass[aligned, 0] > 0)
  one_hot = jax.nn.one_hot(labels, size, dtype=q.dtype)
  return jnp.where(known[:, None], rows[aligned], one_hot)


def _fused(
  probabilities: types.Array,
  labels: types.Array,
  *,
  combine: str,
  mask: types.Array | None,
) -> types.Array:
  """Returns one distribution ``[N, V]`` of K."""
  p = tree.wide(probabilities)
  at = jnp.take_along_axis(p, labels[None, :, None], -1)[..., 0]
  # A probability of 0 at the label is a cost of log 2^126, not infinity.
  cost = -jnp.log(jnp.maximum(at, jnp.finfo(p.dtype).tiny))
  costs = jax.vmap(lambda x: _mean(x, mask))(cost)
  if combine == 'min':
    return p[jnp.argmin(costs)]
  return jnp.einsum('k,knv->nv', jax.nn.softmax(-costs), p, precision='highest')


def _loss(
  logits: types.Array,
  labels: types.Array,
  fused: types.Array,
  *,
  share: types.Scalar,
  mask: types.Array | None,
) -> types.Array:
  """Returns the loss of one text."""
  log_q = jax.nn.log_softmax(tree.wide(logits))
  p = jax.lax.stop_gradient(fused).astype(log_q.dtype)
  text = -jnp.take_along_axis(log_q, labels[:, None], -1)[:, 0]
  # 0 log 0 is 0: one-hot rows have the cross-entropy of their label.
  entropy = jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1)), -1)
  divergence = entropy - jnp.sum(p * log_q, -1)
  share = jnp.asarray(share).astype(log_q.dtype)
  return share * _mean(text, mask) + (1 - share) * _mean(divergence, mask)
