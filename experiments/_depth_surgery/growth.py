"""Networks grown from shallow ones, against networks from scratch."""

import functools
from typing import Any

import jax

from experiments._depth_surgery import settings, training
from experiments._shared import side_by_side
from wsl import surgery, tree, types


def programs(setting: settings.Setting) -> dict[str, surgery.Program]:
  """Returns the programs that make the shallow network deep, by name."""
  config = setting.config
  depth = config.depth // config.growth
  after = [*range(depth)] * (config.growth - 1)
  return {
    'stack': surgery.stack(depth, times=config.growth),
    'each': surgery.stack(depth, times=config.growth, order='each'),
    'identity': surgery.insert_identity(
      depth, after=after, gated=settings.GATED
    ),
  }


def scratch(setting: settings.Setting, budget: int) -> types.Params:
  """Trains deep networks for all steps, ``[S, ...]``."""
  return _train(setting, f'scratch.{budget}', setting.config.depth, budget)


def measure(
  setting: settings.Setting, budget: int, deep: types.Params
) -> dict[str, Any]:
  """Trains shallow networks, grows and continues them, within a budget.

  Args:
    setting: texts and networks.
    budget: the compute, in steps of the deep network.
    deep: networks from scratch of that budget, ``[S, ...]``.

  Returns:
    ``scratch``: bits of the deep networks, ``[S]``. By program ``grown``, bits
    at the growth, and ``bits``, those in the end. ``shallow``: bits of the
    shallow networks. ``steps``: of the shallow and the deep network, and
    ``compute``: the operations of both ways.
  """
  config = setting.config
  windows = setting.corpus.test
  depth = config.depth // config.growth
  whole = settings.compute(setting, config.depth)
  part = settings.compute(setting, depth)
  few = training.rounded(config.small_share * budget * whole / part)
  rest = training.rounded(budget - few * part / whole)
  shallow = _train(setting, f'shallow.{budget}', depth, few)
  found: dict[str, Any] = {
    'scratch': settings.bits(setting, deep, windows),
    'shallow': settings.bits(setting, shallow, windows),
    'steps': [few, rest],
    'compute': [whole * budget, part * few + whole * rest],
    'programs': {},
  }
  for name, program in programs(setting).items():
    grow = functools.partial(_grow, setting, program)
    grown = tree.stack(
      [grow(side_by_side.pick(shallow, s)) for s in range(config.seeds)]
    )
    before = settings.bits(setting, grown, windows)
    trained = training.advance(
      setting, f'{name}.{budget}', grown, 2, steps=rest, rate=config.rate
    )
    found['programs'][name] = {
      'grown': before,
      'bits': settings.bits(setting, trained, windows),
    }
  return found


def _grow(
  setting: settings.Setting, program: surgery.Program, params: types.Params
) -> types.Params:
  """Applies a program to the parts of one network."""
  network = settings.network(setting, params)
  grown: types.Params = surgery.apply_program(network, program).params
  return grown


def _train(
  setting: settings.Setting, label: str, depth: int, steps: int
) -> types.Params:
  """Trains networks of a depth from random weights, ``[S, ...]``."""
  config = setting.config
  keys = side_by_side.keys(config.seed, 0, config.seeds)
  draw = functools.partial(settings.init, setting, depth)
  starts = jax.jit(jax.vmap(draw))(keys)
  return training.advance(
    setting, label, starts, 1, steps=steps, rate=config.rate
  )
