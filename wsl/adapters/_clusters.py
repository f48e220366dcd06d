"""k-means of vectors that are given by their Gram matrix."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types

_STEPS = 100


def cluster(gram: types.Array, count: int, *, signed: bool) -> types.Array:
  r"""Clusters N vectors by k-means, given their inner products.

  A centre is a mean of members, :math:`\mu = X^\top w`, so that with
  :math:`K = X X^\top` all distances are

  .. math:: |x_i - \mu|^2 = K_{ii} - 2 (K w)_i + w^\top K w

  Args:
    gram: K, ``[N, N]``. Vectors of norm 0 are in no cluster.
    count: k, the largest number of clusters, at most N.
    signed: whether a vector may be in a cluster with the sign -1.

  Returns:
    ``[k, N]``: 1 or -1 where a vector is in a cluster, 0 elsewhere. Each of at
    most k vectors is a cluster of its own; if fewer vectors than k differ,
    clusters are empty.

  Reference:
    Lloyd, "Least squares quantization in PCM", 1982; first centres as in the
    step BUILD of Kaufman and Rousseeuw, "Finding Groups in Data", 1990.
  """
  size = jnp.diagonal(gram)
  present = size > 0
  found = _lloyd(gram, _first(gram, count, signed), present, signed)
  # Equal vectors are not one cluster where there is one for each.
  order = jnp.argsort(~present, stable=True)[:count]
  single = jax.nn.one_hot(order, len(gram), dtype=gram.dtype)
  single = single * present[None].astype(gram.dtype)
  return jnp.where(jnp.sum(present) <= count, single, found)


def _first(gram: types.Array, count: int, signed: bool) -> types.Array:
  """Chooses vectors as centres, each of which reduces the objective most."""
  size = jnp.diagonal(gram)
  inner = jnp.abs(gram) if signed else gram
  distance = jnp.maximum(size[:, None] + size[None] - 2 * inner, 0)
  present = size > 0
  of_centre = jnp.where(present[None], distance, jnp.inf)

  def choose(c: types.Array, state: _Chosen) -> _Chosen:
    left = jnp.minimum(state.nearest[:, None], of_centre)
    left = jnp.where(present[:, None], left, 0)
    best = jnp.argmin(jnp.sum(left, 0))
    nearest = jnp.minimum(state.nearest, distance[:, best])
    return _Chosen(nearest, state.centres.at[c].set(best.astype(jnp.int32)))

  nearest = jnp.full_like(size, jnp.inf)
  # With no present vector every candidate is infinite, and nothing is used.
  start = _Chosen(nearest, jnp.zeros(count, jnp.int32))
  chosen = jax.lax.fori_loop(0, count, choose, start)
  return jax.nn.one_hot(chosen.centres, len(gram), dtype=gram.dtype)


class _Chosen(NamedTuple):
  """Squared distances to the nearest centre ``[N]``, and centres ``[k]``."""

  nearest: types.Array
  centres: types.Array


class _State(NamedTuple):
  """Members of clusters ``[k, N]``, whether they changed, and the step."""

  members: types.Array
  changed: types.Array
  step: types.Array


def _lloyd(
  gram: types.Array, members: types.Array, present: types.Array, signed: bool
) -> types.Array:
  """Assigns vectors to the nearest centres until nothing changes."""

  def go_on(state: _State) -> types.Array:
    return state.changed & (state.step < _STEPS)

  def step(state: _State) -> _State:
    assigned = _assign(gram, state.members, present, signed)
    changed = jnp.any(assigned != state.members)
    return _State(assigned, changed, state.step + 1)

  start = _State(members, jnp.asarray(True), jnp.asarray(0))
  return jax.lax.while_loop(go_on, step, start).members


def _assign(
  gram: types.Array, members: types.Array, present: types.Array, signed: bool
) -> types.Array:
  """Assigns each vector to the nearest mean; fills clusters that are empty."""
  count = len(members)
  total = jnp.sum(jnp.abs(members), -1, keepdims=True)
  weights = tree.safe_divide(members, total)
  inner = tree.matmul(weights, gram)
  square = jnp.sum(inner * weights, -1)
  near = jnp.abs(inner) if signed else inner
  # An empty cluster has no centre.
  distance = jnp.where(total > 0, square[:, None] - 2 * near, jnp.inf)
  nearest = jnp.argmin(distance, 0)
  size = jnp.diagonal(gram)
  rest = jnp.min(distance, 0) + size
  # A vector that is its own centre has distance 0, to rounding.
  least = len(gram) * jnp.finfo(gram.dtype).eps * jnp.max(size)
  rest = jnp.where(present & (rest > least), rest, 0)
  nearest, moved = _fill(nearest, rest, present, count)
  here = jnp.arange(count)[:, None] == nearest[None]
  sign = jnp.where(inner < 0, -1, 1).astype(gram.dtype)
  sign = jnp.where(moved[None], 1, sign) if signed else jnp.ones_like(inner)
  return jnp.where(here & present[None], sign, 0)


def _fill(
  nearest: types.Array, rest: types.Array, present: types.Array, count: int
) -> tuple[types.Array, types.Array]:
  """Moves the vectors that are farthest from their centres to empty clusters.

  Args:
    nearest: the cluster of each vector, ``[N]``.
    rest: squared distances to its centre, ``[N]``; those of 0 do not move.
    present: whether a vector counts, ``[N]``.
    count: the number of clusters.

  Returns:
    The clusters, and which vectors moved.
  """
  here = jnp.arange(count)[:, None] == nearest[None]
  empty = ~jnp.any(here & present[None], -1)
  # The e-th empty cluster takes the e-th farthest vector.
  order = jnp.argsort(-rest)[:count]
  clusters = jnp.argsort(~empty, stable=True).astype(nearest.dtype)
  wanted = (jnp.arange(count) < jnp.sum(empty)) & (rest[order] > 0)
  moved = jnp.zeros_like(present).at[order].set(wanted)
  nearest = nearest.at[order].set(jnp.where(wanted, clusters, nearest[order]))
  return nearest, moved
