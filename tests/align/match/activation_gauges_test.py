"""Activation matching over signs, scales, rotations, phases, linear maps."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from tests.align import gauges_test as models
from tests.align.match import gauges_test as weights
from wsl import align

RNG = np.random.default_rng(0)


def batches_of(x, count=8):
  if x.dtype.kind == 'i':
    draw = lambda: RNG.integers(0, 7, x.shape)
  else:
    draw = lambda: RNG.normal(size=x.shape)
  return [jnp.asarray(draw(), x.dtype) for _ in range(count)]


def build(name):
  if name == 'llama':
    apply, params, x = weights.llama(layers=1, width=6, units=2, hidden=3)
  else:
    (apply, params, x), *_ = models.BY_HAND[name]
  symmetry = align.find_symmetry(apply, params, x)
  return apply, weights.host(params), symmetry, batches_of(x)


def matched(fixed, moving, apply, symmetry, batches, **kwargs):
  kwargs = {'gauges': align.GAUGES} | kwargs
  return align.activation_matching(
    fixed,
    moving,
    symmetry=symmetry,
    apply_fn=apply,
    batches=batches,
    **kwargs,
  )


@pytest.mark.parametrize(
  ('name', 'gain'),
  [
    ('relu', 'inner'),
    ('tanh', 'correlation'),
    ('swiglu', 'inner'),
    ('bilinear', 'correlation'),
    ('rms stream', 'inner'),
    ('layer norm stream', 'correlation'),
    ('attention', 'correlation'),
    ('scan', 'inner'),
    ('llama', 'inner'),
  ],
)
def test_a_planted_element_is_undone(name, gain):
  apply, fixed, symmetry, batches = build(name)
  moving = weights.move(fixed, weights.element(symmetry, 1), symmetry)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    found = matched(fixed, moving, apply, symmetry, batches, gain=gain)
  back = weights.move(moving, found, symmetry)
  assert weights.distance(fixed, moving) > 0.5
  assert weights.distance(fixed, back) < 1e-10
  # Permutations alone do not undo it.
  only = {n: found[n] for n in align.identity(symmetry)}
  assert weights.distance(fixed, weights.move(moving, only, symmetry)) > 0.1
