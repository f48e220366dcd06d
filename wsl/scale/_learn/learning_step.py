"""One update of the coefficients, in memory or streamed."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import auxiliary, optimizers, tree, types
from wsl.scale._bank import banks
from wsl.scale._compose import compose, out_of_core


class State(NamedTuple):
  """The state that a step updates."""

  coefs: Any
  opt_state: Any
  aux: types.Tree = None


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
    (loss, aux), gradient = out_of_core.value_and_gradient(
      objective,
      base,
      bank,
      optimizers.fast(state.coefs),
      state.aux,
      batch,
      key,
      transform=transform,
      penalty=penalty,
    )
    return _update_streamed(
      state._replace(aux=aux),
      loss,
      gradient,
      optimizer=optimizer,
      project=project,
    )

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

  def loss_of(coefs: Any) -> tuple[types.Array, types.Tree]:
    coefs = transform(coefs)
    params = compose.compose(base, bank, coefs)
    loss, aux = auxiliary.loss_and_aux(
      objective, params, state.aux, batch, key, caller='fit', start='fit'
    )
    if penalty is None:
      return loss, aux
    return loss + jnp.asarray(penalty(coefs), loss.dtype), aux

  (loss, aux), gradient = jax.value_and_grad(loss_of, has_aux=True)(
    optimizers.fast(state.coefs)
  )
  return _update(
    state._replace(aux=aux),
    loss,
    gradient,
    lambda coefs: loss_of(coefs)[0],
    optimizer=optimizer,
    project=project,
  )


def check_streamed(optimizer: Any, state: State) -> None:
  """Checks, before a row is read, that a streamed step can be taken."""
  loss = jax.ShapeDtypeStruct((), jnp.float32)
  gradient = optimizers.fast(state.coefs)
  jax.eval_shape(
    functools.partial(
      _update_streamed, optimizer=optimizer, project=lambda x: x
    ),
    *(state, loss, gradient),
  )


@functools.partial(jax.jit, static_argnames=('optimizer', 'project'))
def _update_streamed(
  state: State,
  loss: types.Array,
  gradient: Any,
  *,
  optimizer: Any,
  project: Callable[[Any], Any],
) -> tuple[State, types.Array, types.Array]:
  """Takes a step of an optimizer that does not evaluate the loss itself."""
  return _update(
    state,
    loss,
    gradient,
    _no_second_evaluation,
    optimizer=optimizer,
    project=project,
  )


def _no_second_evaluation(coefs: Any) -> types.Array:
  """Refuses to evaluate the loss of a streamed bank within a step."""
  raise ValueError(
    'it evaluates the loss again, which a streamed bank does not allow: read '
    'the bank into memory (tree.read) or take another optimizer'
  )


def _update(
  state: State,
  loss: types.Array,
  gradient: Any,
  value_fn: Callable[[Any], types.Array],
  *,
  optimizer: Any,
  project: Callable[[Any], Any],
) -> tuple[State, types.Array, types.Array]:
  """Applies the optimizer's update and the projection."""
  coefs, opt_state = optimizers.step(
    optimizer,
    gradient,
    state.opt_state,
    state.coefs,
    value=loss,
    value_fn=value_fn,
    caller='fit',
  )
  # A lookahead pair holds coefficients twice, and both are projected.
  if optimizers.is_lookahead(coefs):
    coefs = type(coefs)(*map(project, coefs))
  else:
    coefs = project(coefs)
  finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(coefs)]
  state = State(coefs, opt_state, state.aux)
  return state, loss, jnp.all(jnp.stack(finite))
