"""One update of the coefficients, in memory or streamed."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.scale._bank import banks
from wsl.scale._compose import compose, out_of_core


class State(NamedTuple):
  """The state that a step updates."""

  coefs: Any
  opt_state: Any


def stepper(
  objective: Callable[..., types.Array],
  base: types.Params,
  bank: banks.Bank,
  *,
  optimizer: Any,
  transform: Callable[[Any], Any],
  project: Callable[[Any], Any],
  penalty: Callable[[Any], types.Array] | None,
  stream: bool,
) -> Callable[..., tuple[State, types.Array, types.Array]]:
  """Returns a function (state, batch, key) -> (state, loss, is finite)."""
  objective = tree.partial(objective)
  penalty = None if penalty is None else tree.partial(penalty)
  if not stream:
    base, bank = jax.tree.map(jnp.asarray, (tree.read(base), bank))
    return functools.partial(
      step,
      objective,
      base,
      bank,
      penalty,
      optimizer=optimizer,
      transform=transform,
      project=project,
    )

  def streamed(state: State, batch: Any, key: types.PRNGKey) -> Any:
    loss, gradient = out_of_core.value_and_gradient(
      objective,
      base,
      bank,
      state.coefs,
      batch,
      key,
      transform=transform,
      penalty=penalty,
    )
    return _update(state, loss, gradient, optimizer=optimizer, project=project)

  return streamed


@functools.partial(
  jax.jit, static_argnames=('optimizer', 'transform', 'project')
)
def step(
  objective: Callable[..., types.Array],
  base: types.Params,
  bank: banks.Bank,
  penalty: Callable[[Any], types.Array] | None,
  state: State,
  batch: Any,
  key: types.PRNGKey,
  *,
  optimizer: Any,
  transform: Callable[[Any], Any],
  project: Callable[[Any], Any],
) -> tuple[State, types.Array, types.Array]:
  """Takes a step in memory: (state, loss, is the new state finite)."""

  def loss_of(coefs: Any) -> types.Array:
    coefs = transform(coefs)
    loss = objective(compose.compose(base, bank, coefs), batch, key)
    if penalty is None:
      return loss
    return loss + jnp.asarray(penalty(coefs), loss.dtype)

  loss, gradient = jax.value_and_grad(loss_of)(state.coefs)
  return _update(state, loss, gradient, optimizer=optimizer, project=project)


@functools.partial(jax.jit, static_argnames=('optimizer', 'project'))
def _update(
  state: State,
  loss: types.Array,
  gradient: Any,
  *,
  optimizer: Any,
  project: Callable[[Any], Any],
) -> tuple[State, types.Array, types.Array]:
  """Applies the optimizer's update and the projection."""
  with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes itself
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.coefs
    )
  coefs = project(
    jax.tree.map(lambda x, u: x + u.astype(x.dtype), state.coefs, updates)
  )
  finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(coefs)]
  return State(coefs, opt_state), loss, jnp.all(jnp.stack(finite))
