"""Soft distillation: divergence from a teacher's probabilities."""

import jax
import jax.numpy as jnp

from wsl import tree, types


def check_divisor(divide: str, *, caller: str) -> None:
  """Refuses a divisor that is neither ``'entries'`` nor ``'batch'``."""
  known = ('entries', 'batch')
  if divide not in known:
    raise ValueError(
      f"{caller}: divide='{divide}'{tree.nearest(divide, known)}: expected "
      "'entries' or 'batch'"
    )


def soft(
  wanted: types.Array,
  given: types.Array,
  *,
  temperature: float,
  by_batch: bool,
) -> types.Array:
  r"""Returns :math:`T^2 \frac{1}{n} \sum_b \mathrm{KL}_b`, see ``kl``.

  The gradient of the divergence is 1 / T of the difference of two softmaxes,
  itself of order 1 / T: T^2 keeps its scale.

  Args:
    wanted: the teacher's logits ``[B, ..., classes]``, without gradient.
    given: the student's logits of the same shape.
    temperature: T.
    by_batch: whether n is the number of examples, or of examples and classes.
  """
  divergence = kl(wanted, given, temperature=temperature)
  # `kl` sums over classes: it has one entry for each example, the logits one
  # for each example and class.
  entries = divergence.size if by_batch else given.size
  return temperature**2 * jnp.sum(divergence) / entries


def kl(
  wanted: types.Array, given: types.Array, *, temperature: float
) -> types.Array:
  """Returns KL(softmax(wanted / T) || softmax(given / T)), ``[B, ...]``.

  Args:
    wanted: logits ``[B, ..., classes]``, without gradient.
    given: logits of the same shape.
    temperature: T.
  """
  log_p, log_q = (
    jax.nn.log_softmax(tree.wide(x) / temperature)
    for x in (jax.lax.stop_gradient(wanted), given)
  )
  # sum_c p_c (log p_c - log q_c). Logarithms stay finite where p underflows to
  # 0, so its terms are 0 and not NaN.
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)
