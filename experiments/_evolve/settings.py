"""Images, the network, and the two parents of every run."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments._run import checks
from wsl import data, models, train, tree, types

STARTS = ('scratch', 'experts')
# The arguments of search.m2n2, and two searches of other kinds.
ARCHIVES: dict[str, dict[str, Any]] = {
  'm2n2': {},
  'no_attraction': {'attraction': False},
  'no_split': {'split': False},
  'no_crossover': {'mate': False},
  'genetic': {'attraction': False, 'exponent': 0.0},
}
METHODS = (*ARCHIVES, 'cmaes', 'line')


class Setting(NamedTuple):
  """Config and data of a run.

  Attributes:
    config: of the run.
    train: images ``[N, 64]`` in 0 .. 16 and labels ``[N]``.
    test: for evaluation.
  """

  config: ml_collections.ConfigDict
  train: tuple[types.Array, types.Array]
  test: tuple[types.Array, types.Array]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  checks.choices('starts', config.starts, STARTS)
  checks.choices('methods', config.methods, METHODS)
  checks.sizes(
    {
      'runs': (config.runs, 1, None),
      'width': (config.width, 1, None),
      'archive': (config.archive, 2, None),
      'points': (config.points, 1, config.evaluations),
      'deviation': (config.deviation, 0, None),
      'training.steps': (config.training.steps, 1, None),
    }
  )
  if config.evaluations % config.points:
    raise ValueError(
      f'evaluations={config.evaluations}: expected a multiple of '
      f'points={config.points}'
    )
  # The paper's pixels are 0 .. 16: mutations of 0.01 are made for them.
  splits = (
    (jnp.asarray(16 * split.x.reshape(len(split.x), -1)), jnp.asarray(split.y))
    for split in data.digits()
  )
  return Setting(config, *splits)


def describe(setting: Setting) -> str:
  """Returns the sizes of the runs in one line."""
  config = setting.config
  size = sum(tree.sizes(_shapes(setting)).values())
  return (
    f'{config.runs} runs of {config.evaluations} forward passes over '
    f'{len(setting.train[1])} images; networks of '
    f'{size} weights'
  )


def network(setting: Setting) -> Any:
  """Returns the module of all networks."""
  return models.MLP(widths=(setting.config.width,), outputs=10, norm=False)


def _shapes(setting: Setting) -> types.Params:
  """Returns the shapes of the parameters of a network."""
  init = lambda key: network(setting).init(key, setting.train[0][:1])['params']
  return jax.eval_shape(init, jax.random.key(0))


def scores(setting: Setting, params: types.Params, split: Any) -> types.Array:
  """Returns 1 for each image that a network classifies, ``[N]``."""
  x, y = split
  logits = network(setting).apply({'params': params}, x)
  return (logits.argmax(-1).astype(y.dtype) == y).astype(jnp.float32)


def parents(setting: Setting, start: str) -> types.Params:
  """Returns the two parents of each run, ``[runs, 2, ...]``."""
  config = setting.config
  shapes = _shapes(setting)
  keys = jax.random.split(jax.random.key(config.seed), (config.runs, 2))

  def draw(key: types.PRNGKey) -> types.Params:
    noise = lambda name, x: (
      config.deviation
      * jax.random.normal(tree.name_key(key, name), x.shape, x.dtype)
    )
    return tree.map_named(noise, shapes)

  found = jax.jit(jax.vmap(jax.vmap(draw)))(keys)
  if start == 'scratch':
    return found
  low = np.asarray(setting.train[1]) < 5
  masks = jnp.asarray(np.stack([low, ~low]), jnp.float32)
  learn = lambda params, mask: _train(setting, params, mask)
  return jax.jit(jax.vmap(jax.vmap(learn), in_axes=(0, None)))(found, masks)


def _train(
  setting: Setting, params: types.Params, mask: types.Array
) -> types.Params:
  """Trains a network on some of the images, all of them in each step."""
  config = setting.config.training
  optimizer = optax.adam(config.learning_rate)

  def loss(params: types.Params, batch: Any, key: types.PRNGKey) -> types.Array:
    del key
    x, y, mask = batch
    logits = network(setting).apply({'params': params}, x)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return (each * mask).sum() / mask.sum()

  state, _ = train.advance(
    loss,
    train.start(params, optimizer=optimizer),
    (*setting.train, mask),
    optimizer=optimizer,
    steps=config.steps,
    batch_size=len(mask),
    key=jax.random.key(0),  # a batch holds all images, in any order
  )
  return state.params
