"""The gates of a mixture of experts, and the loss that balances them."""

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


def top_k_gates(
  logits: types.Array, *, top_k: int, normalise: bool = True
) -> types.Array:
  r"""Returns the weights of the experts, zero of all but the k best.

  .. math:: g_e = \frac{\exp(s_e)}{\sum_{j \in K} \exp(s_j)} \;
    \text{for } e \in K, \quad 0 \text{ otherwise}

  where K are the k largest logits s. Without normalisation the sum is over all
  experts, so that the gates of a token sum to less than 1.

  Args:
    logits: s, ``[..., E]``.
    top_k: k, ``1 <= k <= E``.
    normalise: whether the gates of a token sum to 1. With one expert for each
      token such gates are constant, and a router has no gradient from them.

  Returns:
    Gates ``[..., E]``.

  Raises:
    ValueError: if ``top_k`` is out of range.

  Example:
    >>> s = jnp.log(jnp.asarray([[1.0, 3.0, 4.0]]))
    >>> top_k_gates(s, top_k=1).tolist()
    [[0.0, 0.0, 1.0]]
    >>> top_k_gates(s, top_k=1, normalise=False).round(3).tolist()
    [[0.0, 0.0, 0.5]]

  Reference:
    Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated
    Mixture-of-Experts Layer", 2017, arXiv:1701.06538; without normalisation and
    with k = 1: Fedus et al., "Switch Transformers: Scaling to Trillion
    Parameter Models with Simple and Efficient Sparsity", 2021,
    arXiv:2101.03961.
  """
  weights, chosen = choose(logits, top_k, normalise)
  hot = jax.nn.one_hot(chosen, logits.shape[-1], dtype=weights.dtype)
  return jnp.sum(weights[..., None] * hot, -2)


def load_balance(logits: types.Array, *, top_k: int) -> types.Array:
  r"""Returns the auxiliary loss that spreads tokens evenly over the experts.

  .. math:: L = E \sum_e f_e P_e

  where :math:`f_e` is the fraction of the choices that are expert e, and
  :math:`P_e` the mean probability of the expert. L is 1 if all experts are
  equally used, and at most E.

  Args:
    logits: ``[..., E]``.
    top_k: number of experts that a token is routed to.

  Returns:
    The loss, a number. Its gradient is that of P.

  Raises:
    ValueError: if ``top_k`` is out of range.

  Example:
    >>> even = 9 * jnp.eye(4)
    >>> round(float(load_balance(even, top_k=1)), 3)
    1.0
    >>> uneven = jnp.zeros((4, 4)).at[:, 2].set(9.0)
    >>> round(float(load_balance(uneven, top_k=1)), 3)
    3.999

  Reference:
    Fedus et al., "Switch Transformers: Scaling to Trillion Parameter Models
    with Simple and Efficient Sparsity", 2021, arXiv:2101.03961, equation 4.
  """
  experts = logits.shape[-1]
  logits = tree.wide(logits.reshape(-1, experts))
  gates = top_k_gates(logits, top_k=top_k)
  share = jnp.mean((gates > 0).astype(logits.dtype), 0) / top_k
  share = jax.lax.stop_gradient(share)
  return experts * jnp.sum(share * jnp.mean(jax.nn.softmax(logits), 0))


def choose(
  logits: types.Array, top_k: int, normalise: bool
) -> tuple[types.Array, types.Array]:
  """Returns weights and indices ``[..., k]`` of the k best experts."""
  experts = logits.shape[-1]
  whole = isinstance(top_k, (int, np.integer)) and not isinstance(top_k, bool)
  if not whole or not 1 <= top_k <= experts:
    raise ValueError(
      f'top_k={top_k!r}: expected an integer, 1 <= top_k <= {experts} experts'
    )
  best, chosen = jax.lax.top_k(logits, top_k)
  if normalise:
    return jax.nn.softmax(best), chosen
  total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  return jnp.exp(best - total), chosen
