"""Suite, streams and orders of a run."""

from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import optax

from experiments._run import checks, public_calls
from experiments._shared import suites
from wsl import merge

STREAMS = ('opcm', 'running_mean', 'exponential_mean')


class Setting(NamedTuple):
  """Suite, streams and orders of a run.

  Attributes:
    suite: tasks and model.
    streams: transformations by the name in the config.
    orders: tasks in the order of arrival, ``[orders, T]``.
  """

  suite: suites.Suite
  streams: dict[str, optax.GradientTransformation]
  orders: np.ndarray


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  suite = suites.load(config)
  checks.sizes({'orders': (config.orders, 1, None)})
  if not config.streams or not config.coefs:
    raise ValueError('streams, coefs: at least one of each is needed')
  streams = {
    name: _stream(entry, where=f'streams.{name}')
    for name, entry in config.streams.items()
  }
  encoder = suites.shapes(suite)['encoder']
  for stream in streams.values():  # raises if a leaf has no rule
    jax.eval_shape(lambda x, s=stream: s.update(x, s.init(x)), encoder)
  random = np.random.default_rng(config.seed)
  count = len(suite.tasks.names)
  orders = [random.permutation(count) for _ in range(config.orders)]
  return Setting(suite, streams, np.stack(orders))


def _stream(
  entry: ml_collections.ConfigDict, where: str
) -> optax.GradientTransformation:
  """Returns a stream of ``wsl.merge`` from its name and arguments."""
  checks.choice(f'{where}.stream', entry.stream, STREAMS)
  build: Any = getattr(merge, entry.stream)
  public_calls.check(build, entry.arguments, where=f'{where}.arguments')
  return build(**entry.arguments)


def describe(setting: Setting) -> str:
  """Returns suite, streams and orders in one line."""
  return (
    f'{suites.describe(setting.suite)}; {len(setting.streams)} streams, '
    f'{len(setting.orders)} orders'
  )
