"""A network as functions of its variables, running moments included."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections

from experiments._run import public_calls
from wsl import models, types


class Net(NamedTuple):
  """A network as functions of its parameters.

  Attributes:
    init: maps a key to parameters.
    apply_fn: maps (params, images) to logits ``[B, C]``.
    fit_fn: the same in training mode: batch normalisation uses the moments of
      the batch.
    update_fn: maps (params, running moments, images) to the updated running
      moments; None without batch normalisation.
  """

  init: Callable[[types.PRNGKey], types.Params]
  apply_fn: Callable[[types.Params, types.Array], types.Array]
  fit_fn: Callable[[types.Params, types.Array], types.Array]
  update_fn: (
    Callable[[types.Params, types.Tree, types.Array], types.Tree] | None
  )


def find(config: ml_collections.ConfigDict) -> Any:
  """Returns the module that a config names; checks its arguments.

  Args:
    config: ``module``, a public name of ``wsl.models``, and ``arguments``.

  Returns:
    The module's class.

  Raises:
    ValueError: naming the wrong field and the nearest valid name.
  """
  module = public_calls.find(config.module, [models], where='model.module')
  public_calls.check(module, config.arguments, where='model.arguments')
  return module


def build(model: Any, image: types.Array) -> Net:
  """Returns the functions of a Flax module.

  Args:
    model: a module.
    image: one input, ``[1, ...]``, for its shape.

  Returns:
    The network.
  """
  init = lambda key: model.init(key, image)
  # Flax keeps the moments of batch normalisation in 'batch_stats'.
  has_moments = 'batch_stats' in jax.eval_shape(init, jax.random.key(0))

  def fit_fn(params: types.Params, x: types.Array) -> types.Array:
    if not has_moments:
      return model.apply(params, x)
    return model.apply(params, x, train=True)

  def update_fn(
    params: types.Params, moments: types.Tree, x: types.Array
  ) -> types.Tree:
    variables = {**params, 'batch_stats': moments}
    _, new = model.apply(variables, x, train=True, mutable=['batch_stats'])
    return new['batch_stats']

  return Net(init, model.apply, fit_fn, update_fn if has_moments else None)
