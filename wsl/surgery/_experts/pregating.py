"""A router of domains that decides before the layers are computed (Read-ME)."""

import functools

import jax
import jax.numpy as jnp

from wsl import tree, types

_QUANTILES = 5
_SMOOTHING = 0.5  # of the hard labels
_HARD = 0.75  # weight of the hard labels


def domain_scores(hidden: types.Array, masks: types.Array) -> types.Array:
  r"""Scores domains by how well their units cover those that a token activates.

  .. math:: o_c = \sum_j u_j m_{cj}, \qquad u_j = \frac{1}{3 n}
    \sum_{q} [h_j > \text{the } q\text{-th largest of } h]

  with q = n - 1, 4n/5, 3n/5, 2n/5 and n/5, rounded down. The scores are centred
  over the domains, and multiplied by 10: the targets of a router.

  Args:
    hidden: h, the hidden activations of tokens, ``[..., n]``.
    masks: m, ``[C, n]``.

  Returns:
    ``[..., C]``, in float32 or wider; add them up over the layers.

  Raises:
    ValueError: if there are fewer than 5 units, or shapes do not fit.

  Example:
    >>> h = jnp.asarray([9.0, 8.0, 7.0, 0.3, 0.2, 0.1])
    >>> masks = jnp.asarray([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    >>> (domain_scores(h, masks) > 0).tolist()
    [True, False]

  Reference:
    Cai et al., "Read-ME: Refactorizing LLMs as Router-Decoupled Mixture of
    Experts with System Co-Design", 2024, arXiv:2410.19123; constants as in the
    official code.
  """
  n = hidden.shape[-1]
  if n < _QUANTILES or masks.shape[1:] != (n,):
    raise ValueError(
      f'domain_scores: hidden {hidden.shape} and masks {masks.shape}: expected '
      f'[..., n] and [C, n] with n >= {_QUANTILES}'
    )
  hidden = tree.wide(hidden)
  ordered = jnp.sort(hidden, axis=-1)  # ascending: the q-th largest is n - q
  ranks = (n - 1, *(n * i // _QUANTILES for i in (4, 3, 2, 1)))
  above = [
    (hidden > ordered[..., n - q, None]).astype(hidden.dtype) for q in ranks
  ]
  cover = functools.reduce(jnp.add, above) / (3 * n)
  scores = tree.matmul(cover, masks.T.astype(cover.dtype))
  return 10 * (scores - jnp.mean(scores, -1, keepdims=True))


def router_loss(logits: types.Array, scores: types.Array) -> types.Array:
  r"""Returns the loss of a router that predicts the scores of domains.

  .. math:: L = 0.75 \, H(y, p) + 0.25 \, H(\operatorname{softmax}(o), p),
    \qquad p = \operatorname{softmax}(s)

  where y is the best domain, smoothed: half of its weight is spread evenly over
  all domains. H is the cross-entropy.

  Args:
    logits: s, of the router, ``[..., C]``.
    scores: o, ``domain_scores`` summed over layers, ``[..., C]``.

  Returns:
    The mean over tokens.

  Raises:
    ValueError: if the shapes differ.

  Example:
    >>> scores = jnp.asarray([[4.0, 0.0]])
    >>> good, bad = jnp.asarray([[2.0, 0.0]]), jnp.asarray([[0.0, 2.0]])
    >>> bool(router_loss(good, scores) < router_loss(bad, scores))
    True

  Reference:
    Cai et al., "Read-ME: Refactorizing LLMs as Router-Decoupled Mixture of
    Experts with System Co-Design", 2024, arXiv:2410.19123; constants as in the
    official code.
  """
  if logits.shape != scores.shape:
    raise ValueError(
      f'router_loss: logits {logits.shape} and scores {scores.shape}: expected '
      'one score for each logit'
    )
  logits, scores = tree.widen(logits, scores)
  count = logits.shape[-1]
  best = jax.nn.one_hot(jnp.argmax(scores, -1), count, dtype=logits.dtype)
  hard = (1 - _SMOOTHING) * best + _SMOOTHING / count
  wanted = _HARD * hard + (1 - _HARD) * jax.nn.softmax(scores)
  return -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(logits), -1))
