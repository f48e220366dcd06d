"""Applies random elements of a group and compares outputs."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from tests.align.find import adversarial, oracle, zoo
from tests.align.find.zoo import base
from wsl import align

# Outputs are compared with outputs of the same program: do not optimise it.
_QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}


@functools.cache
def build(name: str) -> base.Model:
  """Returns a model of the zoo or of the adversarial cases."""
  if name in adversarial.CASES:
    return adversarial.CASES[name].model
  return zoo.build(name)


@functools.cache
def symmetry_of(name):
  model = build(name)
  return align.find_symmetry(
    model.apply,
    model.params,
    *model.inputs,
    certify=jax.random.key(0) if model.certified else None,
  )


@functools.cache
def compiled(name, dtype='float64'):
  """Returns the parameters and the function ``params -> output``."""
  model = build(name)
  params, inputs = jax.tree.map(
    lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
    (model.params, model.inputs),
  )
  run = quick(model.apply, params, *inputs)
  return params, lambda p: np.asarray(run(p, *inputs))


def quick(fn, *operands):
  """Compiles a function for operands of these shapes without optimisation."""
  return jax.jit(fn).lower(*operands).compile(_QUICK)


def draw(group, symmetry, rng):
  """Draws a table that is not the identity."""
  shape = symmetry.table_shape(group.name)
  start = np.broadcast_to(np.arange(shape[-1]), shape)
  table = start
  while np.array_equal(table, start) and shape[-1] > 1:
    table = rng.permuted(start, axis=-1)
  return table


def error(found, wanted):
  return np.abs(found - wanted).max() / np.abs(wanted).max()


def largest_error(run, params, symmetry):
  """Returns the largest relative error of generators and of all together."""
  rng = np.random.default_rng(0)
  tables = {g.name: draw(g, symmetry, rng) for g in symmetry.groups}
  elements = [tables, *({name: table} for name, table in tables.items())]
  wanted = run(params)
  assert np.isfinite(wanted).all()
  return max(
    error(run(oracle.move(params, element, symmetry)), wanted)
    for element in elements
  )


def assert_sound(name, symmetry, dtypes=('float64', 'float32')):
  """Checks generators and all of them together in each dtype."""
  exact = 1e-6 if build(name).narrow else 1e-12
  bounds = {'float64': exact, 'float32': 1e-5}
  for dtype in dtypes:
    params, run = compiled(name, dtype)
    assert largest_error(run, params, symmetry) < bounds[dtype]


def log10_order(name):
  """Returns the decimal logarithm of the order known from theory."""
  return math.log10(build(name).order)
