"""Training: nested networks, networks of one width, and their slices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._nested import settings
from experiments._shared import side_by_side
from wsl import align, stats, surgery, tree, types

# How the units of the ordinary network are sorted before it is sliced.
ORDERS = ('stored', 'weights', 'gradients', 'activations')


def uniform(setting: settings.Setting) -> list[surgery.Size]:
  """Returns the sizes whose blocks are equal: those of nested training."""
  return setting.sizes[: len(setting.config.factors)]


def single(setting: settings.Setting) -> types.Params:
  """Trains a network of each width, at the shapes of the whole.

  Returns:
    Parameters ``[factors, seeds, ...]``; the first is the ordinary network. The
    others begin as networks of their width do, between zeros that stay.
  """
  config, sizes = setting.config, uniform(setting)
  stacked = tree.stack([jax.tree.map(np.int32, size) for size in sizes])
  starts = tree.stack([initial(setting, size) for size in sizes])
  loss = functools.partial(_one_width, setting)
  trained = _train(setting, 'widths', loss, side_by_side.flat(starts), stacked)
  return side_by_side.fold(trained, len(sizes), config.seeds)


def nested(setting: settings.Setting, kind: str) -> types.Params:
  """Trains nested networks of one kind, ``[seeds, ...]``."""
  sizes = uniform(setting)
  loss_fn = surgery.nested_loss(
    functools.partial(cross_entropy, setting),
    sizes,
    symmetry=setting.symmetry,
    **settings.KINDS[kind],
  )
  loss = lambda bound, params, batch, key: loss_fn(params, batch, key)
  starts = initial(setting, sizes[0])
  return _train(setting, kind, loss, starts, {})


def initial(setting: settings.Setting, size: surgery.Size) -> types.Params:
  """Draws networks of a width, padded by zeros to the shapes of the whole."""
  image = setting.images.train[0][:1]
  keys = side_by_side.keys(setting.config.seed, 0, setting.config.seeds)
  init = lambda module: lambda key: module.init(key, image)
  shapes = jax.eval_shape(init(setting.module), keys[0])
  small = jax.jit(jax.vmap(init(settings.resized(setting, size))))(keys)

  def pad(x: types.Array, whole: jax.ShapeDtypeStruct) -> types.Array:
    margins = [(0, n - m) for n, m in zip(whole.shape, x.shape[1:])]
    return jnp.pad(x, [(0, 0), *margins])

  return jax.tree.map(pad, small, shapes)


def _train(
  setting: settings.Setting,
  label: str,
  loss: Any,
  starts: types.Params,
  bound: types.Tree,
) -> types.Params:
  """Trains networks side by side; run r has width ``r // seeds`` of bound."""
  config, seeds = setting.config, setting.config.seeds
  runs = len(jax.tree.leaves(starts)[0])
  # The same seed sees the same batches at each width.
  keys = side_by_side.keys(config.seed, 1, seeds)
  keys = jnp.tile(keys, runs // seeds)

  def pick(shared: Any, run: types.Array) -> tuple[types.Tree, types.Tree]:
    bound, examples = shared
    return side_by_side.pick(bound, run // seeds), examples

  return side_by_side.advance_all(
    label,
    loss,
    starts,
    keys,
    (bound, setting.images.train),
    pick,
    steps=config.steps,
    batch_size=config.batch_size,
    rate=config.learning_rate,
    at_once=None,
  )


def cross_entropy(
  setting: settings.Setting, params: types.Params, batch: Any, key: Any
) -> types.Array:
  """Returns the mean cross-entropy of a batch."""
  del key
  logits = setting.module.apply(params, batch[0])
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, batch[1]
  ).mean()


def _one_width(
  setting: settings.Setting,
  size: surgery.Size,
  params: types.Params,
  batch: Any,
  key: Any,
) -> types.Array:
  """Returns the loss of a slice."""
  part = surgery.mask_units(params, size, symmetry=setting.symmetry)
  return cross_entropy(setting, part, batch, key)


def sorted_units(
  setting: settings.Setting, networks: types.Params, order: str
) -> types.Params:
  """Sorts the hidden units of networks ``[S, ...]`` by their importance."""
  if order == 'stored':
    return networks
  each = [side_by_side.pick(networks, s) for s in range(setting.config.seeds)]
  if order == 'gradients':
    stacked = _gradient_tables(setting, networks)
    tables = [side_by_side.pick(stacked, s) for s in range(len(each))]
  else:
    tables = [_table(setting, params, order) for params in each]
  names = settings.elastic(setting)
  moved = []
  for params, table in zip(each, tables):
    found = surgery.importance_order(
      {name: table[name] for name in names}, symmetry=setting.symmetry
    )
    moved.append(align.permute(params, found, symmetry=setting.symmetry))
  return tree.stack(moved)


def _table(
  setting: settings.Setting, params: types.Params, order: str
) -> dict[str, types.Array]:
  """Returns the importance of the units of one network."""
  if order == 'weights':
    return surgery.weight_importance(params, symmetry=setting.symmetry)
  grams = stats.gram(
    setting.module.apply,
    params,
    [setting.images.held_out[0]],
    leaves=setting.config.readers,
  )
  return surgery.activation_importance(params, grams, symmetry=setting.symmetry)


def _gradient_tables(
  setting: settings.Setting, networks: types.Params
) -> dict[str, types.Array]:
  """Returns the mean importance by the gradients of single images, ``[S]``.

  The gradient of the mean loss is near zero after training; those of images
  are not.
  """

  def of_image(params: types.Params, image: Any) -> dict[str, types.Array]:
    batch = jax.tree.map(lambda x: x[None], image)
    slopes = jax.grad(functools.partial(cross_entropy, setting))(
      params, batch, None
    )
    return surgery.gradient_importance(
      params,
      slopes,
      symmetry=setting.symmetry,
      leaves=setting.config.readers,
    )

  def of_network(params: types.Params) -> dict[str, types.Array]:
    one = functools.partial(of_image, params)
    tables = jax.lax.map(one, setting.images.held_out, batch_size=32)
    return jax.tree.map(lambda x: jnp.mean(x, 0), tables)

  return jax.jit(lambda p: jax.lax.map(of_network, p))(networks)
