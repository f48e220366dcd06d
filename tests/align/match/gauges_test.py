"""Weight matching over signs, scales, rotations and linear maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.gauges import networks as models
from tests.align.gauges.moved import (
  distance,
  element,
  host,
  move,
)
from wsl import align

KEY = jax.random.key(0)
# Linear units that depend on each other have no balanced form.
DEPENDENT = {'identity', 'fused'}
PLANTED = [n for n in models.BY_HAND if n not in DEPENDENT]


@pytest.mark.parametrize('name', PLANTED)
def test_a_planted_element_is_undone(name):
  (apply, params, *inputs), *_ = models.BY_HAND[name]
  symmetry = align.find_symmetry(apply, params, *inputs)
  fixed = host(params)
  kinds = dict.fromkeys(action.kind for action in symmetry.actions)
  for gauges in [align.GAUGES, *((kind,) for kind in kinds)]:
    moving = move(fixed, element(symmetry, 1, gauges), symmetry)
    visits = []
    found = align.weight_matching(
      fixed,
      moving,
      symmetry=symmetry,
      key=KEY,
      gauges=gauges,
      progress=visits.append,
    )
    assert distance(fixed, move(moving, found, symmetry)) < 1e-12
    gains = [visit.gained for visit in visits]
    assert min(gains, default=0) >= 0
    if gauges == align.GAUGES:
      # Without the actions the planted element is not undone.
      found = align.weight_matching(fixed, moving, symmetry=symmetry, key=KEY)
      assert not kinds or distance(fixed, move(moving, found, symmetry)) > 0.1


@pytest.mark.parametrize('name', ['attention', 'reglu', 'rms stream'])
def test_a_planted_element_is_undone_in_float32(name):
  (apply, params, *inputs), *_ = models.BY_HAND[name]
  symmetry = align.find_symmetry(apply, params, *inputs)
  fixed = host(params, np.float32)
  moving = move(fixed, element(symmetry, 2), symmetry)
  found = align.weight_matching(
    fixed, moving, symmetry=symmetry, key=KEY, gauges=align.GAUGES
  )
  assert {x.dtype for x in found.values()} <= {
    np.dtype(np.float32),
    np.dtype(np.int32),
  }
  assert distance(fixed, move(moving, found, symmetry)) < 1e-6


@pytest.mark.parametrize('seed', [1, 2])
def test_all_gauges_of_a_transformer_are_undone(seed):
  apply, params, tokens = models.llama()
  symmetry = align.find_symmetry(apply, params, tokens)
  kinds = {action.kind for action in symmetry.actions}
  assert kinds == {'sign', 'scale', 'rotation', 'phase', 'linear'}
  fixed = host(params)
  moving = move(fixed, element(symmetry, seed), symmetry)
  found = align.weight_matching(
    fixed, moving, symmetry=symmetry, key=KEY, gauges=align.GAUGES
  )
  assert distance(fixed, moving) > 1
  # The rotation is not determined by the 7 tokens and 2 outputs alone: it
  # converges with the maps of the heads and the units.
  assert distance(fixed, move(moving, found, symmetry)) < 1e-12


@pytest.mark.parametrize('gauges', [align.GAUGES, ('sign',)])
def test_signed_permutations_of_recurrent_units_are_undone(gauges):
  def apply(p, xs):
    step = lambda h, x: (jnp.tanh(h @ p['w'] + x @ p['i'] + p['b']), None)
    return jax.lax.scan(step, jnp.zeros(9), xs)[0] @ p['o']

  params = models.shapes(w=(9, 9), i=(3, 9), b=(9,), o=(9, 2))
  symmetry = align.find_symmetry(apply, params, models.X)
  fixed = host(params)
  moving = move(fixed, element(symmetry, 1, gauges), symmetry)
  found = align.weight_matching(
    fixed, moving, symmetry=symmetry, key=KEY, gauges=gauges
  )
  assert distance(fixed, moving) > 1
  assert distance(fixed, move(moving, found, symmetry)) == 0


def test_dependent_units_are_matched_by_rotations_only():
  (apply, params, *inputs), *_ = models.BY_HAND['identity']
  symmetry = align.find_symmetry(apply, params, *inputs)
  fixed = host(params)
  g = element(symmetry, 1)
  rotation = np.linalg.qr(g['linear a:1'])[0]
  moving = move(fixed, g | {'linear a:1': rotation}, symmetry)
  message = "'linear a:1' is matched by rotations only: .* in 'c' of"
  with pytest.warns(UserWarning, match=message):
    found = align.weight_matching(
      fixed, moving, symmetry=symmetry, key=KEY, gauges=align.GAUGES
    )
  assert distance(fixed, move(moving, found, symmetry)) < 1e-12


def test_the_result_does_not_depend_on_the_gauge_of_either_model():
  # Two unrelated models; each is replaced by another one of its function.
  (apply, params, *inputs), *_ = models.BY_HAND['attention']
  symmetry = align.find_symmetry(apply, params, *inputs)
  a, b = (
    {n: np.asarray(x) for n, x in models.values(params, seed).items()}
    for seed in (1, 2)
  )

  def objective(a, b):
    visits = []
    align.weight_matching(
      a,
      b,
      symmetry=symmetry,
      key=KEY,
      gauges=align.GAUGES,
      progress=visits.append,
      starts=4,
    )
    return max(visit.objective for visit in visits)

  other = move(a, element(symmetry, 5), symmetry)
  np.testing.assert_allclose(objective(other, b), objective(a, b), 1e-6)
