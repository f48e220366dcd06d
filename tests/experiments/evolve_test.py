"""Evolution of networks, end to end."""

import numpy as np
import pytest

from configs import evolve as configs
from experiments import evolve
from experiments._evolve import runs
from tests.experiments import battery

MISTAKES = [
  ({'methods': ('m2n3',)}, "methods: no 'm2n3' .did you mean 'm2n2'"),
  ({'starts': ()}, 'starts: none given'),
  ({'evaluations': 121}, 'evaluations=121: expected a multiple of points=3'),
  ({'archive': 1}, 'archive=1: expected 2 or more'),
]
PARTS = [
  *('scratch', 'scratch.m2n2', 'scratch.genetic', 'scratch.cmaes'),
  *('experts', 'experts.m2n2', 'experts.genetic', 'experts.line'),
]
ROW = battery.Row(
  evolve,
  configs,
  PARTS,
  {'curves.png': (400, 1000)},
  MISTAKES,
  (runs, '_cmaes', lambda *_: True, 3),
  {'paper': {'runs': 10, 'evaluations': 50_000}},
  changed=('runs', 3),
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return battery.tiny(tmp_path_factory, ROW)


def test_the_best_on_training_images_never_falls_without_niches(finished):
  for start, methods in finished.record['results'].items():
    for name, found in methods.items():
      assert found['evaluations'] == [[40, 80, 120]]
      for split in ('train', 'test'):
        values = np.asarray(found[split])
        assert values.shape == (2, 3)
        assert ((values >= 0) & (values <= 1)).all()
      if name in ('genetic', 'cmaes'):
        assert (np.diff(found['train']) >= 0).all(), (start, name)


def test_the_line_holds_both_experts(finished):
  # An expert knows half of the digits; each end of the line is one.
  found = finished.record['results']['experts']['line']
  assert np.min(found['train']) > 0.3


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_run(check, finished):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_config(check, tmp_path):
  check(tmp_path)
