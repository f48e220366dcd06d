"""Fronts of merges, end to end."""

import json

import numpy as np
import pytest

from configs import pareto as configs
from experiments import pareto
from experiments._pareto import runs, searches
from tests.experiments import battery

MISTAKES = [
  ({'methods': ('mmmo',)}, "methods: no 'mmmo' .did you mean 'mm_mo'"),
  ({'budgets': (10, 12)}, 'expected multiples of 5 from 10'),
  ({'budgets': (15, 10)}, 'expected rising numbers'),
  ({'groups': (('upright', 'upright'),)}, 'expected 2 to 4 different tasks'),
  ({'groups': (('upright', 'invert'),)}, "did you mean 'inverted'"),
  ({'groups': ()}, 'groups: none given'),
  ({'exhaustive': 3}, 'exhaustive=3: expected 4 or more'),
]
GROUP = 'upright + inverted'
ROW = battery.Row(
  pareto,
  configs,
  ['base', 'experts', *(f'{GROUP}.{x}' for x in ('grid', 'random', 'map',
   'mm_mo'))],
  {'curves.png': (400, 700), 'fronts.png': (400, 700)},
  MISTAKES,
  (runs, '_key', lambda *_: True, 3),
  {'digits': {'seeds': 5, 'budgets': (10, 15, 20, 25, 30)}},
)  # fmt: skip


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return battery.tiny(tmp_path_factory, ROW)


def test_hypervolumes_grow_with_evaluations(finished):
  found = finished.record['results'][GROUP]
  for name in ('random', 'mm_mo'):
    share = np.asarray(found[name]['share'])
    assert share.shape == (1, 2)
    assert (share > 0).all()
    assert (np.diff(share) >= 0).all()
  # Both searches begin with the same ten points.
  assert found['random']['share'][0][0] == found['mm_mo']['share'][0][0]
  assert found['map']['predicted'][0] > 0.5


def test_the_grid_is_a_front_above_the_base(finished):
  grid = finished.record['grids'][GROUP]
  front, inner = (np.asarray(grid[name][0]) for name in ('front', 'inner'))
  assert (np.diff(front[:, 0]) > 0).all()
  assert (np.diff(front[:, 1]) < 0).all()
  beaten = (front[None] <= inner[:, None]).all(2).any(1)
  assert beaten.all()
  assert grid['points'] == 25


def test_every_evaluation_is_in_a_journal(finished):
  folder = finished.workdir / 'evaluations'
  counts = {
    file.name: len(file.read_text().splitlines()) for file in folder.iterdir()
  }
  name = 'upright_inverted'
  assert counts == {
    f'{name}.random.0.all.jsonl': 15,
    f'{name}.map.0.10.jsonl': 10,
    f'{name}.map.0.15.jsonl': 15,
    f'{name}.mm_mo.0.all.jsonl': 15,
  }
  first = (folder / f'{name}.mm_mo.0.all.jsonl').read_text().splitlines()[0]
  assert len(json.loads(first)['value']) == 2


def test_a_budget_that_does_not_suffice_is_left_out():
  points, errors = searches._map(None, 4, 20, (), None, adaptive=False)
  assert points.shape == (0, 4)
  assert not len(errors)


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
