"""Functions designed to mislead the reader have no unsound symmetry."""

import math

import jax
import pytest

from tests.align.find import adversarial, harness
from wsl import align

every_case = pytest.mark.parametrize('name', adversarial.CASES)


@every_case
def test_every_symmetry_holds(name):
  harness.assert_sound(name, harness.symmetry_of(name), ['float64'])


@every_case
def test_known_symmetries_are_found(name):
  found = harness.symmetry_of(name).log10_order
  assert found > math.log10(adversarial.CASES[name].least) - 1e-9
  assert found < harness.log10_order(name) + 1e-9


def test_names_differ():
  assert len(adversarial.CASES) == sum(map(len, adversarial.PARTS))


UNSEEN = pytest.mark.xfail(
  strict=True, reason='certification covers only code that its inputs reach'
)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=UNSEEN if name == 'expert_rarely_fixed' else ())
    for name in adversarial.rare.CASES
  ],
)
def test_certification_frees_no_unit_that_rare_inputs_distinguish(name):
  model = harness.build(name)
  found = align.find_symmetry(
    model.apply, model.params, *model.inputs, certify=jax.random.key(7)
  )
  assert found.log10_order < harness.log10_order(name) + 1e-9
