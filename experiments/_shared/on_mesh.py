"""Experiments on a mesh: sharded models, and runs or recipes as candidates.

The axis ``candidates`` of the mesh maps runs, seeds, coefficients or points of
a path; parameters are sharded over all other axes. Without a mesh nothing here
changes anything.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments._run import console
from wsl import mesh as mesh_lib
from wsl import train, types


def shard(
  stack: types.Tree, mesh: jax.sharding.Mesh | None, *, lead: int = 0
) -> types.Tree:
  """Shards models over the axes that do not map candidates.

  Args:
    stack: one model or many, leaves ``[*lead, ...]``.
    mesh: of the run, or None.
    lead: the number of first axes that stack models, which are not sharded.

  Returns:
    The stack; the same arrays without a mesh or without such an axis.
  """
  if mesh is None or not _shards(mesh):
    return stack
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[lead:], x.dtype), stack
  )
  where = mesh_lib.shardings(one, None, mesh)

  def place(x: types.Array, sharding: jax.sharding.NamedSharding) -> Any:
    return mesh_lib.shard(x, jax.P(*[None] * lead, *sharding.spec), mesh)

  return jax.tree.map(place, stack, where)


def _shards(mesh: jax.sharding.Mesh) -> bool:
  """Returns whether an axis of several devices shards parameters."""
  return any(n > 1 for name, n in mesh.shape.items() if name != 'candidates')


def evaluate(
  label: str,
  fn: Callable[[Any], types.Tree],
  candidates: types.Tree,
  mesh: jax.sharding.Mesh,
  *,
  batch: int | None = None,
) -> types.Tree:
  """Maps a function over candidates and shows the progress.

  Args:
    label: of the progress line.
    fn: maps one candidate to arrays.
    candidates: leaves ``[N, ...]``.
    mesh: with an axis ``candidates``.
    batch: of candidates on one device at once.

  Returns:
    The results, numpy arrays ``[N, ...]``.
  """
  total = len(jax.tree.leaves(candidates)[0])
  with console.progress(label, total) as tick:

    def progress(done: mesh_lib.Batch) -> None:
      for _ in done.indices:
        tick('')

    return mesh_lib.map_candidates(
      fn, candidates, mesh=mesh, batch=batch, progress=progress
    )


def advance_all(
  label: str,
  loss: Callable[..., types.Array],
  starts: types.Params,
  keys: types.PRNGKey,
  shared: types.Tree,
  pick: Callable[[Any, types.Array], tuple[types.Tree, types.Tree]],
  *,
  steps: int,
  batch_size: int,
  at_once: int | None,
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
) -> tuple[types.Params, types.Array]:
  """Trains R runs, each a candidate; see ``side_by_side.advance_all``.

  Args:
    label: of the progress line.
    loss: maps (bound, params, batch, key) to a scalar.
    starts: initial parameters, leaves ``[R, ...]``.
    keys: one for each run, ``[R]``.
    shared: arrays that the runs share.
    pick: maps (shared, index of a run) to that run's ``bound`` and examples.
    steps: of each run.
    batch_size: examples in a batch.
    at_once: how many runs ``vmap`` trains side by side on a device.
    optimizer: of all runs.
    mesh: with an axis ``candidates``.

  Returns:
    The trained parameters, leaves ``[R, ...]``, and the last losses, ``[R]``.
  """
  shared = jax.tree.map(jnp.asarray, shared)

  def train_one(run: dict[str, Any]) -> tuple[types.Params, types.Array]:
    bound, examples = pick(shared, run['index'])
    state, losses = train.advance(
      jax.tree_util.Partial(loss, bound),
      train.start(run['start'], optimizer=optimizer),
      examples,
      optimizer=optimizer,
      steps=steps,
      batch_size=batch_size,
      key=run['key'],
    )
    return state.params, losses[-1]

  runs = {
    'index': jnp.arange(len(keys)),
    'start': shard(starts, mesh, lead=1),
    'key': keys,
  }
  found = evaluate(label, train_one, runs, mesh, batch=at_once or 1)
  params, losses = jax.tree.map(jnp.asarray, found)
  return params, losses
