"""The experiment on barriers between transformers, matched over gauges."""

import numpy as np
import pytest

from configs import align_barrier as configs
from experiments import align_barrier
from experiments._align_barrier import claims, gauge_rows
from tests.experiments import battery

ROW = 'sign_scale_linear_rotation_phase'
PAIRINGS = [
  *('naive', 'weight_matching', 'frame', ROW, *gauge_rows.LEARNED),
  *('random', 'planted', 'recovered'),
]
MATCHES = ['weight_matching', ROW, *gauge_rows.LEARNED, 'recovered']


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  config = configs.get_config('tiny_lm')
  record = align_barrier.run(config, str(workdir))
  return workdir, record


def test_every_row_is_measured_and_no_part_is_computed_twice(finished):
  workdir, record = finished
  assert list(record['results']) == PAIRINGS
  paths = [f'path.{name}' for name in PAIRINGS]
  wanted = ['networks', *MATCHES, *paths, 'left by kind']
  assert battery.parts(workdir) == wanted
  for name in ('paths.png', 'layers.png', 'distances.png'):
    assert (workdir / name).stat().st_size > 10_000
  rows = {row['title'] for row in record['rows']}
  assert {'learned, both networks', 'canonical form'} < rows


def test_functions_at_both_ends_are_those_of_the_trained_networks(finished):
  _, record = finished
  own = record['results']['naive']['plain'][0]['values']['test']['loss']
  for name in PAIRINGS[:-2]:
    loss = record['results'][name]['plain'][0]['values']['test']['loss']
    np.testing.assert_allclose(loss[0], own[0], rtol=2e-4)
    np.testing.assert_allclose(loss[-1], own[-1], rtol=2e-4)


def test_a_planted_element_is_undone_and_a_random_one_is_not(finished):
  _, record = finished
  apart = {k: v['apart'][0] for k, v in record['results'].items()}
  assert apart['recovered'] < 1e-3
  assert apart['planted'] > 0.5
  assert apart['random'] > apart['frame'] - 0.05
  assert apart[ROW] < apart['frame']
  kinds = {'permutation', 'sign', 'scale', 'linear', 'rotation', 'phase'}
  assert set(record['left_by_kind']) == kinds
  for left in record['left_by_kind'].values():
    assert left[0] < 1e-3
  height = claims.heights(record['results']['recovered'])
  assert height == pytest.approx(0, abs=1e-4)


def test_claims_are_differences_of_barriers(finished):
  _, record = finished
  height = {k: claims.heights(v) for k, v in record['results'].items()}
  by = {k: v['by'] for k, v in record['claims'].items()}
  wanted = height['weight_matching'] - height[ROW]
  assert by['all gauges below permutations alone'] == pytest.approx(wanted)
  wanted = height['learned_one'] - height['learned']
  assert by['both learned below one learned'] == pytest.approx(wanted)
  low = claims.LOW * height['naive'] - height[ROW]
  assert by['all gauges low, below 0.1 of as it is'] == pytest.approx(low)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'ladder': (('sing',),)}, "ladder: no 'sing' .did you mean 'sign'"),
    ({'learned.held_out': 999}, 'learned.held_out=999: expected 1'),
    ({'domains': ('manual',)}, 'expected two or more'),
  ],
)
def test_mistakes_are_reported(tmp_path, changes, message):
  config = configs.get_config('tiny_lm')
  config.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=message):
    align_barrier.run(config, str(tmp_path / 'run'))
