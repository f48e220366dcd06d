"""No operation, however odd, leads to a symmetry that does not hold."""

import math

import pytest

from tests.align import adversarial, harness

every_case = pytest.mark.parametrize('name', adversarial.CASES)


@every_case
def test_what_is_found_holds(name):
  harness.assert_sound(name, harness.symmetry_of(name), ['float64'])


@every_case
def test_what_is_known_is_found(name):
  found = harness.symmetry_of(name).log10_order
  assert found > math.log10(adversarial.CASES[name].least) - 1e-9
  assert found < harness.log10_order(name) + 1e-9


def test_names_differ():
  assert len(adversarial.CASES) == sum(map(len, adversarial.PARTS))
