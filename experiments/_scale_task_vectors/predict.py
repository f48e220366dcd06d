"""Predictions of composed models, and disentanglement of task vectors."""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._scale_task_vectors import task_vectors
from experiments._shared import side_by_side, suites
from wsl import mesh, scale, types


class Composed(NamedTuple):
  """A base with scaled task vectors, and the heads of T' tasks.

  Attributes:
    encode: a ``Partial`` of (encoder, images).
    base: of one seed, ``[...]``.
    deltas: scaled vectors, ``[T, ...]``.
    heads: ``[T', ...]``.
  """

  encode: Callable[..., types.Array]
  base: types.Params
  deltas: types.Deltas
  heads: types.Params


@jax.jit
def scaled(bank: scale.Bank, coefs: scale.Coefs) -> types.Deltas:
  """Multiplies each vector by its coefficients, leaves ``[T, ...]``."""

  def one(mask: types.Array) -> types.Tree:
    times = lambda x: x * mask.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
    return scale.combine(bank, jax.tree.map(times, coefs))

  return jax.vmap(one)(jnp.eye(len(bank), dtype=jnp.float32))


def compose(
  encode: Any,
  base: types.Params,
  heads: types.Params,
  bank: scale.Bank,
  coefs: scale.Coefs,
) -> Composed:
  """Returns the model of some coefficients."""
  return Composed(encode, base, scaled(bank, coefs), heads)


@functools.partial(jax.jit, static_argnums=4)
def predictions(
  model: Composed,
  x: types.Array,
  masks: types.Array,
  tasks: types.Array,
  batch_size: int,
) -> types.Array:
  """Returns the predicted classes of M compositions, each on one task.

  Args:
    model: base, vectors and heads.
    x: images, ``[T', N, ...]``.
    masks: 1 for vectors to add, ``[M, T]``.
    tasks: whose images and head are used, ``[M]``.
    batch_size: images in memory at once.

  Returns:
    Integers ``[M, N]``.
  """

  def of_one(operands: tuple[types.Array, types.Array]) -> types.Array:
    mask, task = operands
    params = jax.tree.map(
      lambda b, d: b + jnp.tensordot(mask, d, 1), model.base, model.deltas
    )
    head = side_by_side.pick(model.heads, task)

    def of_image(image: types.Array) -> types.Array:
      found = task_vectors.logits(model.encode, head, params, image[None])
      return jnp.argmax(found[0]).astype(jnp.int32)

    return jax.lax.map(of_image, x[task], batch_size=batch_size)

  return jax.lax.map(of_one, (masks, tasks))


def accuracies(model: Composed, split: Any, *, batch_size: int) -> np.ndarray:
  """Returns the accuracy of the sum of all vectors on each task, ``[T']``."""
  return np.asarray(correct(model, split, batch_size=batch_size)).mean(1)


def correct(model: Composed, split: Any, *, batch_size: int) -> types.Array:
  """Returns for which images the sum of all vectors is right, ``[T', N]``."""
  count = split.y.shape[0]
  vectors = len(jax.tree.leaves(model.deltas)[0])
  masks = jnp.ones((count, vectors), jnp.float32)
  found = predictions(model, split.x, masks, jnp.arange(count), batch_size)
  return found == jnp.asarray(split.y, found.dtype)


def searched(
  suite: suites.Suite,
  compose: Callable[[scale.Coefs], Composed],
  bank: scale.Bank,
  coefs: Sequence[float],
) -> np.ndarray:
  """Returns the validation accuracy of each coefficient and task, ``[L, T]``.

  On a mesh, coefficients are its candidates.
  """
  split = jax.tree.map(jnp.asarray, suite.tasks.validation)
  size = suite.config.evaluation.batch_size

  def at(coef: types.Scalar) -> types.Array:
    model = compose(scale.init(bank, by='task', value=coef))
    return correct(model, split, batch_size=size)

  if suite.mesh is None:
    return np.stack([np.asarray(at(coef)) for coef in coefs]).mean(2)
  values = np.asarray(coefs, np.float32)
  found = mesh.map_candidates(at, values, mesh=suite.mesh)
  return np.asarray(found).mean(2)


def disentanglement(
  model: Composed, split: Any, *, batch_size: int
) -> np.ndarray:
  r"""Returns the pairwise disentanglement error, ``[T, T]``, diagonal 0.

  .. math:: \xi_{ij} = P_{x \sim D_i}\bigl[ f(x; \theta_0 + \Lambda_i \tau_i)
    \neq f(x; \theta_0 + \Lambda_i \tau_i + \Lambda_j \tau_j) \bigr]

  with the head of task i: how often the vector of task j changes a prediction
  on an image of task i.

  Reference:
    Ortiz-Jimenez et al., "Task Arithmetic in the Tangent Space: Improved
    Editing of Pre-Trained Models", 2023, arXiv:2305.12827.
  """
  count = split.y.shape[0]
  own, other = np.divmod(np.arange(count**2), count)
  # Row (i, j) adds the vectors of tasks i and j; (i, i) adds one vector only.
  masks = np.zeros((count**2, count), np.float32)
  masks[np.arange(count**2), own] = 1
  masks[np.arange(count**2), other] = 1
  found = predictions(
    model, split.x, jnp.asarray(masks), jnp.asarray(own), batch_size
  )
  both = np.asarray(found).reshape(count, count, -1)
  alone = both[np.arange(count), np.arange(count)]
  return (both != alone[:, None]).mean(2)
