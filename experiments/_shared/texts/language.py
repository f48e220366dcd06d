"""Functions and losses of a language model of bytes."""

from collections.abc import Callable
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wsl import train, types


# One function for each model: programs are kept as long as their functions.
@functools.lru_cache(maxsize=16)
def apply_fn(model: Any) -> Callable[[types.Params, types.Array], types.Array]:
  """Returns the function from (params, tokens) to logits."""
  return lambda params, tokens: model.apply({'params': params}, tokens)


@functools.lru_cache(maxsize=16)
def loss_fn(model: Any) -> Callable[..., types.Array]:
  """Returns the training loss in nats for each byte.

  It maps (windows ``[W, S + 1]``, params, rows ``[B]``, key) to a number.
  """

  def loss(
    windows: types.Array,
    params: types.Params,
    rows: types.Array,
    key: types.PRNGKey,
  ) -> types.Array:
    del key
    inputs, targets = split(windows[rows])
    return cross_entropy(apply_fn(model)(params, inputs), targets)

  return loss


def cross_entropy(logits: types.Array, targets: types.Array) -> types.Array:
  """Returns the mean cross-entropy in nats."""
  return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def split(windows: types.Array) -> tuple[types.Array, types.Array]:
  """Returns inputs and targets ``[..., S]`` of windows ``[..., S + 1]``."""
  tokens = windows.astype(jnp.int32)
  return tokens[..., :-1], tokens[..., 1:]


@functools.partial(jax.jit, static_argnums=(0, 1))
def bits(
  model: Any, batch_size: int, params: types.Params, windows: types.Array
) -> types.Array:
  """Measures a model on the domains.

  Args:
    model: the Flax module.
    batch_size: windows evaluated together.
    params: of the model.
    windows: of the domains, ``[D, K, S + 1]``.

  Returns:
    The mean cross-entropy in bits for each byte of each domain, ``[D]``.
  """
  run = apply_fn(model)

  def of_domain(own: types.Array) -> types.Array:
    data = split(own)
    loss = train.evaluate(run, params, data, batch_size=batch_size).loss
    return loss / math.log(2)

  return jax.lax.map(of_domain, windows)
