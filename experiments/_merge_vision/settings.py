"""Suite and methods of a comparison of merges."""

import functools
from typing import NamedTuple

import jax
import ml_collections

from experiments._merge_vision import merging
from experiments._shared import merge_methods, suites


class Setting(NamedTuple):
  """Suite and methods of a run.

  Attributes:
    suite: tasks and model.
    methods: to compare.
  """

  suite: suites.Suite
  methods: list[merge_methods.Method]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  suite = suites.load(config)
  methods = merge_methods.parse(config.methods, config.arguments, config.coefs)
  check(suite, methods)
  return Setting(suite, methods)


def check(suite: suites.Suite, methods: list[merge_methods.Method]) -> None:
  """Traces every method on shapes, so that errors precede the training.

  Args:
    suite: tasks and model.
    methods: with their candidates.

  Raises:
    ValueError: naming the method and the wrong argument.
  """
  count = len(suite.tasks.names)
  supplied = {
    name: suites.abstract(suite, name, (count,))
    for name in merge_methods.statistics(methods)
  }
  supplied['key'] = jax.eval_shape(jax.random.key, 0)
  shapes = suites.shapes(suite)
  supplied['examples'] = jax.eval_shape(
    functools.partial(suites.examples, suite), shapes['heads']
  )
  functions = merging.functions(suite)
  for method in methods:
    merge_methods.check(method, shapes['encoder'], count, supplied, functions)


def describe(setting: Setting) -> str:
  """Returns suite and number of methods in one line."""
  return f'{suites.describe(setting.suite)}; {len(setting.methods)} methods'
