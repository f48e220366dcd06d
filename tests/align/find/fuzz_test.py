"""A few of the random programs of ``fuzz``."""

import pytest

from tests.align.find import fuzz


@pytest.mark.parametrize('seed', [2003, 2006, 2010, 2022, 2025, 2030, 2038])
def test_a_random_program_keeps_its_outputs(seed):
  change, group, _ = fuzz.error(seed)
  assert change < fuzz.BOUND, (fuzz.program(seed).layers, group)
