"""The networks of a zoo, trained side by side by one program.

A network of width w is a part of one of the largest width: its other units have
zero weights on both sides. ReLU and its derivative are zero there, so that the
units stay zero in training, add nothing to the Hessian, and all widths share
every compiled program.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._phases import settings
from experiments._shared import nets_training, side_by_side
from wsl import landscape, models, train, tree, types


def network(setting: settings.Setting) -> models.MLP:
  """Returns the network of the largest width."""
  width = max(setting.config.widths)
  return models.MLP(widths=(width, width), outputs=setting.classes, norm=False)


def apply(
  setting: settings.Setting, params: types.Params, x: types.Array
) -> types.Array:
  """Maps images to logits ``[B, C]``."""
  return jnp.asarray(network(setting).apply({'params': params}, x))


def cross_entropy(
  setting: settings.Setting, params: types.Params, batch: nets_training.Examples
) -> types.Array:
  """Returns the mean cross-entropy of a batch."""
  logits = apply(setting, params, batch[0])
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, batch[1]
  ).mean()


def starts(setting: settings.Setting) -> types.Params:
  """Returns initial parameters of each width and seed, ``[W, S, ...]``.

  A narrow network is the first units of the widest one of its seed. Variances
  of initial weights are 1 / inputs, so those of hidden units are scaled.
  """
  config = setting.config
  keys = side_by_side.keys(config.seed, 0, config.seeds)
  init = lambda key: network(setting).init(key, setting.train[0][:1])['params']
  full = jax.jit(jax.vmap(init))(keys)
  widest = max(config.widths)
  units = np.arange(widest) < np.array(config.widths)[:, None]
  scales = np.sqrt(widest / np.array(config.widths))[:, None] * units
  columns = {'block_0': units, 'block_1': units}
  rows = {'block_1': scales, 'output': scales}

  def cut(name: str, x: types.Array) -> types.Array:
    block = name.split('/')[0]
    x = jnp.broadcast_to(x[None], (len(units), *x.shape))
    if not name.endswith('kernel'):
      return x  # biases are zero
    if block in columns:
      x = x * columns[block][:, None, None, :].astype(x.dtype)
    if block in rows:
      x = x * rows[block][:, None, :, None].astype(x.dtype)
    return x

  return tree.map_named(cut, full)


def networks(setting: settings.Setting) -> types.Params:
  """Trains a network for each width, rate and seed, ``[W, T, S, ...]``.

  Raises:
    FloatingPointError: if the mean loss is not finite.
  """
  config = setting.config
  shape = (len(config.widths), len(config.rates), config.seeds)
  # All rates of a width and seed start from the same parameters.
  begin = jax.tree.map(
    lambda x: jnp.broadcast_to(
      x[:, None], (len(x), shape[1], *x.shape[1:])
    ).reshape(-1, *x.shape[2:]),
    jax.jit(functools.partial(starts, setting))(),
  )
  rates = jnp.broadcast_to(
    jnp.asarray(config.rates, jnp.float32)[None, :, None], shape
  )
  steps = config.epochs * (len(setting.train[1]) // config.batch_size)
  trained = side_by_side.advance_all(
    'networks',
    functools.partial(_loss, setting, config.weight_decay),
    begin,
    side_by_side.keys(config.seed, 1 << 20, rates.size),
    (rates.reshape(-1), setting.train),
    lambda shared, run: (shared[0][run], shared[1]),
    steps=steps,
    batch_size=config.batch_size,
    rate=1.0,
    at_once=config.at_once,
    optimizer=_sgd,
  )
  return side_by_side.fold(trained, *shape)


def _sgd(rate: float, *, steps: int) -> optax.GradientTransformation:
  """SGD with momentum, warm-up and cosine decay."""
  schedule = optax.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps)
  return optax.sgd(schedule, momentum=0.9)


def _loss(
  setting: settings.Setting,
  decay: float,
  rate: types.Array,
  params: types.Params,
  batch: nets_training.Examples,
  key: types.PRNGKey,
) -> types.Array:
  """Returns the cross-entropy; its gradient is multiplied by a rate.

  Updates of SGD are proportional to the gradient, so the rate of each run can
  be traced and the optimizer is one for all.
  """
  del key
  loss = cross_entropy(setting, params, batch)
  scaled = rate * (loss + decay / 2 * optax.tree.norm(params, squared=True))
  return jax.lax.stop_gradient(loss - scaled) + scaled


def measure(setting: settings.Setting, params: types.Params) -> dict[str, Any]:
  """Returns loss, accuracy and curvature of each network, ``[W, T, S]``."""
  config = setting.config
  shape = (len(config.widths), len(config.rates), config.seeds)
  flat = jax.tree.map(lambda z: z.reshape(-1, *z.shape[3:]), params)
  keys = side_by_side.keys(config.seed, 1 << 21, len(jax.tree.leaves(flat)[0]))
  found = settings.compiled(setting, _measure)(flat, keys)
  return {name: z.reshape(shape).tolist() for name, z in found.items()}


def _measure(
  setting: settings.Setting, params: types.Params, keys: types.PRNGKey
) -> dict[str, types.Array]:
  """Returns the measures of networks ``[R, ...]``, some side by side."""
  few = setting.config.hessian
  x, y = (z[: few.examples] for z in setting.train)
  batch = few.batch_size
  batches = [
    (x[i : i + batch], y[i : i + batch]) for i in range(0, len(y), batch)
  ]
  loss = functools.partial(cross_entropy, setting)
  classify = functools.partial(apply, setting)

  def one(operands: Any) -> dict[str, types.Array]:
    params, key = operands
    top = landscape.hessian_top(
      loss, params, batches, steps=few.steps, order='magnitude', key=key
    )
    trace = landscape.hessian_trace(
      loss, params, batches, probes=few.probes, key=key
    )
    fits, generalises = (
      train.evaluate(classify, params, split, batch_size=500)
      for split in (setting.train, setting.test)
    )
    return {
      'loss': fits.loss, 'train': fits.accuracy, 'test': generalises.accuracy,
      'top': top.values[0], 'trace': trace.value, 'error': trace.error,
    }  # fmt: skip

  at_once = setting.config.at_once
  return jax.lax.map(one, (params, keys), batch_size=at_once)
