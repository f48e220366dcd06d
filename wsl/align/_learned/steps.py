"""Compiled steps of learned matching, and what they learn."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import optimizers, types
from wsl.align import _soft, _symmetry
from wsl.align._gauges import elements
from wsl.align._learned import path as path_lib
from wsl.align._learned import tangents

Loss: TypeAlias = Callable[[types.Params, Any], types.Array]
Move: TypeAlias = Callable[..., tangents.Tables]
CALLER = 'learned_matching'
ENDS = ('fixed', 'moving')


@dataclasses.dataclass(frozen=True)
class Chart:
  """What is learned.

  Attributes:
    symmetry: the symmetry; groups that are not learned are pinned.
    smooth: the names of continuous actions to learn of the fixed and of the
      moving model.
    signs: the names of signs to learn, of the moving model.
  """

  symmetry: _symmetry.Symmetry
  smooth: tuple[tuple[str, ...], tuple[str, ...]]
  signs: tuple[str, ...]


class State(NamedTuple):
  """The current elements, and what belongs to them.

  Attributes:
    tables: for each end the tables of actions, with the duals of linear maps.
    latents: of groups ``[*outer, *free outer, n, n]`` and signs ``[*outer, n]``
      of the moving model. Their projections are its permutation and signs.
    optimizer: the state of the optimizer.
  """

  tables: dict[str, tangents.Tables]
  latents: dict[str, types.Array]
  optimizer: Any


def chart(
  symmetry: _symmetry.Symmetry, gauges: Sequence[str], both: bool
) -> Chart:
  """Returns what is learned of a symmetry.

  A rotation or linear map of a factor includes its permutations, which are not
  learned then, unless another group depends on them.
  """
  chosen = [a for a in symmetry.actions if a.kind in gauges]
  signs = tuple(a.name for a in chosen if a.kind == 'sign')
  smooth = tuple(a.name for a in chosen if a.kind != 'sign')
  included = {a.factor for a in chosen if tangents.is_matrix(a)}
  included -= {name for group in symmetry.groups for name in group.outer}

  def one(factor: _symmetry.Factor) -> _symmetry.Factor:
    learned = 'permutation' in gauges and factor.name not in included
    if factor.pinned or learned:
      return factor
    return factor._replace(pinned='not learned')

  factors = tuple(map(one, symmetry.factors))
  pinned = dataclasses.replace(symmetry, factors=factors)
  return Chart(pinned, (smooth if both else (), smooth), signs)


def begin(
  where: Chart,
  initial: Mapping[str, types.Array],
  optimizer: Any,
  dtype: np.dtype,
) -> State:
  """Returns the state at the identity and the actions of ``initial``."""
  symmetry = where.symmetry
  start = {n: np.asarray(x) for n, x in initial.items() if n in symmetry.action}
  given = [{}, {n: x for n, x in start.items() if n not in where.signs}]
  tables = {}
  for end, names, known in zip(ENDS, where.smooth, given):
    new = {n: tangents.identity(symmetry, n) for n in names if n not in known}
    full = elements.with_duals(symmetry, known | new, np)
    # jnp.asarray would compile a program for each shape.
    tables[end] = {n: jax.device_put(x.astype(dtype)) for n, x in full.items()}
  shapes = {g.name: _soft.shape(g, symmetry) for g in symmetry.groups}
  latents = {
    n: jax.device_put(np.broadcast_to(np.eye(s[-1], dtype=dtype), s))
    for n, s in shapes.items()
  }
  for n in where.signs:
    sign = start.get(n, tangents.identity(symmetry, n))
    latents[n] = jax.device_put(sign.astype(dtype))
  state = State(tables, latents, None)
  first = coordinates(where, state)
  return state._replace(
    optimizer=optimizers.init(optimizer, first, caller=CALLER)
  )


def coordinates(where: Chart, state: State) -> dict[str, tangents.Tables]:
  """Returns what the optimizer changes: zero tangents, and the latents."""
  found = {}
  for end, names in zip(ENDS, where.smooth):
    tables = state.tables[end]
    found[end] = {
      n: tangents.zeros(where.symmetry, n, tables[n]) for n in names
    }
  found['moving'] |= state.latents
  return found


def signs_of(latents: Mapping[str, types.Array], where: Chart) -> Any:
  """Returns the signs of some latents; 0 counts as positive."""
  return {n: jnp.where(latents[n] < 0, -1, 1) for n in where.signs}


def loss_at(
  at: dict[str, tangents.Tables],
  state: State,
  models: dict[str, types.Params],
  permutation: Mapping[str, types.Array],
  batch: Any,
  weight: types.Array,
  *,
  where: Chart,
  loss_fn: Loss,
  move: Move,
) -> types.Array:
  """Returns the loss at one place of the path, as a function of coordinates.

  The straight-through estimator: a permutation matrix P that is the projection
  of a latent Z is replaced by P + Z - Z_0, with Z_0 the current latent. Signs
  alike.

  Args:
    at: coordinates, see ``coordinates``.
    state: the current elements.
    models: the models by end.
    permutation: the projection of the current latents.
    batch: the batch of the loss.
    weight: of the moving model.
    where: what is learned.
    loss_fn: the loss.
    move: ``tangents.first_order`` or ``tangents.retract``.
  """
  symmetry, latents = where.symmetry, state.latents
  ends = []
  for end, names in zip(ENDS, where.smooth):
    steps = {n: at[end][n] for n in names}
    tables = move(state.tables[end], steps, symmetry)
    matrices = {}
    if end == 'moving':
      for n, sign in signs_of(latents, where).items():
        tables[n] = sign.astype(latents[n].dtype) + (at[end][n] - latents[n])
      hard = harden(permutation, where, latents)
      matrices = {n: x + (at[end][n] - latents[n]) for n, x in hard.items()}
    ends.append(
      path_lib.endpoint(models[end], matrices, tables, symmetry=symmetry)
    )
  between = path_lib.point(*ends, weight, like=models['fixed'])
  return loss_fn(between, batch)


def harden(
  permutation: Mapping[str, types.Array],
  where: Chart,
  latents: Mapping[str, types.Array],
) -> _soft.Matrices:
  """Returns the matrices of a permutation, in the dtype of the latents."""
  if not permutation:
    return {}
  dtype = latents[next(iter(permutation))].dtype
  return _soft.harden(dict(permutation), symmetry=where.symmetry, dtype=dtype)


@functools.partial(jax.jit, static_argnames=('where', 'loss_fn', 'optimizer'))
def train_step(
  state: State,
  models: dict[str, types.Params],
  permutation: Mapping[str, types.Array],
  batch: Any,
  weight: types.Array,
  *,
  where: Chart,
  loss_fn: Loss,
  optimizer: Any,
) -> tuple[types.Array, State]:
  """Returns the loss before a step, and the state after it."""
  loss = functools.partial(
    loss_at,
    state=state,
    models=models,
    permutation=permutation,
    batch=batch,
    weight=weight,
    where=where,
    loss_fn=loss_fn,
  )
  here = coordinates(where, state)
  value, gradient = jax.value_and_grad(
    functools.partial(loss, move=tangents.first_order)
  )(here)
  after, optimizer_state = optimizers.step(
    optimizer,
    gradient,
    state.optimizer,
    here,
    value=value,
    value_fn=functools.partial(loss, move=tangents.retract),
    caller=CALLER,
  )
  tables = {}
  for end, names in zip(ENDS, where.smooth):
    steps = {n: after[end][n] for n in names}
    tables[end] = tangents.retract(state.tables[end], steps, where.symmetry)
  latents = {n: after['moving'][n] for n in state.latents}
  return value, State(tables, latents, optimizer_state)


@functools.partial(jax.jit, static_argnames=('where', 'loss_fn'))
def path_losses(
  state: State,
  models: dict[str, types.Params],
  permutation: Mapping[str, types.Array],
  batch: Any,
  weights: types.Array,
  *,
  where: Chart,
  loss_fn: Loss,
) -> types.Array:
  """Returns the losses of a batch at some places of the path."""
  state = state._replace(optimizer=None)
  at = coordinates(where, state)
  loss = lambda weight: loss_at(
    at,
    state,
    models,
    permutation,
    batch,
    weight,
    where=where,
    loss_fn=loss_fn,
    move=lambda tables, steps, symmetry: dict(tables),
  )
  return jax.lax.map(loss, weights)
