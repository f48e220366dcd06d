"""Compiled steps of learned matching."""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from wsl import optimizers, types
from wsl.align import _assignment, _permutation, _soft, _symmetry
from wsl.align._gauges import compose, elements
from wsl.align._learned import chart as chart_lib
from wsl.align._learned import latents as latents_lib
from wsl.align._learned import path as path_lib
from wsl.align._learned import tangents

Loss: TypeAlias = Callable[[types.Params, Any], types.Array]
Coordinates: TypeAlias = dict[str, dict[str, types.Array]]
Move: TypeAlias = Callable[
  [tangents.Tables, tangents.Tables, _symmetry.Symmetry], tangents.Tables
]
CALLER = 'learned_matching'


class State(NamedTuple):
  """The current elements.

  Attributes:
    tables: for each end the tables of actions, with the duals of linear maps.
    latents: of groups ``[*outer, *free outer, n, n]`` and signs ``[*outer, n]``
      of the moving model. Their projections are its permutation and signs.
    optimizer: the state of the optimizer.
  """

  tables: dict[str, tangents.Tables]
  latents: latents_lib.Latents
  optimizer: Any


def begin(
  models: dict[str, types.Params],
  initial: Mapping[str, types.Array],
  optimizer: Any,
  *,
  chart: chart_lib.Chart,
  names: tuple[str, ...],
  solver: _assignment.Solver,
) -> State:
  """Returns the state at the identity and the actions of ``initial``.

  Args:
    models: the models by end, the moving one in its initial order.
    initial: the initial element of the moving model.
    optimizer: an optax transformation.
    chart: the coordinates that are learned.
    names: the leaves that count for the gains of permutations and signs.
    solver: solves assignments.
  """
  symmetry, dtype = chart.symmetry, _soft.matrix_dtype(models)
  given = {n: np.asarray(x) for n, x in initial.items() if n in symmetry.action}
  signs = elements.identity_actions(symmetry, chart.signs)
  signs |= {n: given[n] for n in chart.signs if n in given}
  tables = {}
  for end, learned in zip(chart_lib.ENDS, chart.smooth):
    full: dict[str, Any] = {**elements.identity_actions(symmetry, learned)}
    if end == 'moving':
      full |= {n: x for n, x in given.items() if n not in signs}
    full = elements.with_duals(symmetry, full, np)
    # jnp.asarray would compile a program for each shape.
    tables[end] = {n: jax.device_put(x.astype(dtype)) for n, x in full.items()}
  found = latents_lib.begin(
    models, tables['moving'], signs, chart=chart, names=names, solver=solver
  )
  state = State(tables, found, None)
  first = optimizers.init(optimizer, coordinates(state, chart), caller=CALLER)
  return state._replace(optimizer=first)


def coordinates(state: State, chart: chart_lib.Chart) -> Coordinates:
  """Returns the parameters of the optimizer: zero tangents, and latents."""
  found = {}
  for end, learned in zip(chart_lib.ENDS, chart.smooth):
    tables = state.tables[end]
    zeros = lambda n, x: tangents.zeros(chart.symmetry, n, x)
    found[end] = {n: zeros(n, tables[n]) for n in learned}
  found['moving'] |= state.latents
  return found


def _path_loss(
  state: State,
  models: dict[str, types.Params],
  permutation: Mapping[str, types.Array],
  batch: Any,
  chart: chart_lib.Chart,
  loss_fn: Loss,
) -> Callable[[Coordinates, types.Array, Move], types.Array]:
  """Returns the loss on the path, by coordinates and the weight of ``moving``.

  The straight-through estimator: a permutation matrix P that is the projection
  of a latent Z is replaced by P + Z - Z_0, with Z_0 the current latent. Signs
  alike.

  Args:
    state: the current elements.
    models: the models by end.
    permutation: the projection of the current latents.
    batch: the batch of the loss.
    chart: the coordinates that are learned.
    loss_fn: the loss.

  Returns:
    The loss; its last argument is how tangents move tables, such as
    ``tangents.retract``.
  """
  symmetry, latents = chart.symmetry, state.latents
  hard = latents_lib.harden(permutation, latents, chart)
  signs = latents_lib.signs_of(latents, chart)

  def loss(at: Coordinates, weight: types.Array, move: Move) -> types.Array:
    change = {n: at['moving'][n] - x for n, x in latents.items()}
    matrices = {n: x + change[n] for n, x in hard.items()}
    tables = {}
    for end, learned in zip(chart_lib.ENDS, chart.smooth):
      steps = {n: at[end][n] for n in learned}
      tables[end] = move(state.tables[end], steps, symmetry)
    tables['moving'] |= {n: x + change[n] for n, x in signs.items()}
    fixed = path_lib.endpoint(
      models['fixed'], {}, tables['fixed'], symmetry=symmetry
    )
    moving = path_lib.endpoint(
      models['moving'], matrices, tables['moving'], symmetry=symmetry
    )
    between = path_lib.point(fixed, moving, weight, like=models['fixed'])
    return loss_fn(between, batch)

  return loss


@functools.partial(jax.jit, static_argnames=('chart', 'loss_fn', 'optimizer'))
def train_step(
  state: State,
  models: dict[str, types.Params],
  permutation: Mapping[str, types.Array],
  batch: Any,
  weight: types.Array,
  *,
  chart: chart_lib.Chart,
  loss_fn: Loss,
  optimizer: Any,
) -> tuple[types.Array, State]:
  """Returns the loss before a step, and the state after it."""
  loss = _path_loss(state, models, permutation, batch, chart, loss_fn)
  here = coordinates(state, chart)
  # At zero tangents the first order has the gradient of the retraction, without
  # the products of its series; a line search evaluates the retraction itself.
  value, gradient = jax.value_and_grad(
    lambda at: loss(at, weight, tangents.first_order)
  )(here)
  after, optimizer_state = optimizers.step(
    optimizer,
    gradient,
    state.optimizer,
    here,
    value=value,
    value_fn=lambda at: loss(at, weight, tangents.retract),
    caller=CALLER,
  )
  tables = {}
  for end, learned in zip(chart_lib.ENDS, chart.smooth):
    steps = {n: after[end][n] for n in learned}
    tables[end] = tangents.retract(state.tables[end], steps, chart.symmetry)
  latents = {n: after['moving'][n] for n in state.latents}
  return value, State(tables, latents, optimizer_state)


@functools.partial(jax.jit, static_argnames=('chart', 'loss_fn'))
def path_losses(
  state: State,
  models: dict[str, types.Params],
  permutation: Mapping[str, types.Array],
  batch: Any,
  weights: types.Array,
  *,
  chart: chart_lib.Chart,
  loss_fn: Loss,
) -> types.Array:
  """Returns the losses of a batch at some places of the path."""
  loss = _path_loss(state, models, permutation, batch, chart, loss_fn)
  here = coordinates(state, chart)
  stay: Move = lambda tables, steps, symmetry: dict(tables)
  return jax.lax.map(lambda weight: loss(here, weight, stay), weights)


def elements_of(
  state: State,
  permutation: _permutation.Permutation,
  first: _permutation.Permutation,
  chart: chart_lib.Chart,
  symmetry: _symmetry.Symmetry,
) -> tuple[_permutation.Permutation, _permutation.Permutation]:
  """Returns the elements of both models; the permutation ``first`` precedes."""
  actions: dict[str, dict[str, Any]] = {
    end: {n: x for n, x in tables.items() if n in symmetry.action}
    for end, tables in state.tables.items()
  }
  for n in chart.signs:
    latent = np.asarray(state.latents[n])
    actions['moving'][n] = np.where(latent < 0, -1, 1).astype(latent.dtype)
  identity = _permutation.identity(symmetry)
  learned = identity | permutation | actions['moving']
  moved = compose.compose(first, learned, symmetry=symmetry)
  return identity | actions['fixed'], moved
