"""Nested networks, end to end."""

import numpy as np
import pytest

from configs import nested as configs
from experiments import nested
from experiments._nested import networks
from tests.experiments import battery

MISTAKES = [
  ({'factors': (1,)}, r'factors=\(1,\): expected 1 and larger ones, rising'),
  ({'factors': (2, 4)}, 'expected 1 and larger ones, rising'),
  ({'kinds': ('summd',)}, "kinds: no 'summd' .did you mean 'summed'"),
  ({'model.arguments.width': 8}, "'width' .did you mean 'widths'"),
  ({'groups': 'conv'}, "groups='conv' matches no group"),
  ({'batch_size': 5000}, r'batch_size=5000: expected 1 \.\. '),
  ({'steps': 5}, 'steps=5: expected 10 or more'),
]
ROW = battery.Row(
  nested,
  configs,
  ['widths', 'sampled', 'costs', 'slices'],
  {'slices.png': (500, 900)},
  MISTAKES,
  (networks, 'nested', lambda *_: True, 1),
  {'digits': {'seeds': 3, 'factors': (1, 2, 4, 8)}, 'images': {'data': 'data'}},
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return battery.tiny(tmp_path_factory, ROW)


def test_a_cut_slice_computes_what_the_masked_one_does(finished):
  assert finished.record['difference'] < 1e-5


def test_all_slices_are_measured_and_the_whole_is_the_same(finished):
  record, results = finished.record, finished.record['results']
  assert record['choices'] == [[1, 1], [4, 4], [1, 4], [4, 1]]
  assert record['flops'][0] == max(record['flops'])
  assert len({*record['flops']}) == 4
  for order in networks.ORDERS:
    found = np.asarray(results[order])
    assert found.shape == (1, 4)
    np.testing.assert_allclose(found[0, 0], results['stored'][0][0], atol=0.3)
  assert np.asarray(results['separate']).shape == (1, 2)
  assert results['separate'][0][0] == results['stored'][0][0]
  # Training at a width is better than cutting to it.
  assert results['sampled'][0][1] > 15
  assert set(record['claims']) >= {'sorted slices above unsorted'}


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
