"""A family of stitched networks, end to end."""

import numpy as np
import pytest

from configs import stitch_family as configs
from experiments import stitch_family
from experiments._stitch_family import joint, settings, tables
from tests.experiments import battery

PARTS = (
  *('anchors', 'least_squares', 'v1', 'v2', 'selections'),
  *('distilled', 'alone', 'distilled_each'),
)

MISTAKES = [
  ({'task': 'uprihgt'}, "no 'uprihgt' of the digits .did you mean 'upright'"),
  ({'data': 'no/such/folder'}, r'no data at no/such/folder.*--config\.data='),
  ({'widths': (8,)}, r'widths=\[8\]: expected two or more growing numbers'),
  ({'widths': (8, 4)}, r'widths=\[8, 4\]: expected two or more growing'),
  ({'depths': (2, 3)}, r'depths=\[2, 3\]: expected 2 numbers, 2 or more'),
  ({'heads': 3}, 'heads=3 does not divide width 4'),
  ({'patch': 3}, 'patch=3 does not divide the side, 8'),
  ({'selection.count': 9}, r'selection\.count=9: expected 1 \.\. 4'),
  ({'selection.measure': 'ckaa'}, "no 'ckaa' .did you mean 'cka'"),
  ({'calibration': 5000}, r'calibration=5000: expected 1 \.\. 1100'),
  ({'seeds': 0}, 'seeds=0: expected 1 or more'),
]

FIGURES = dict.fromkeys(['pareto.png', 'similarity.png'], (500, 900))
VARIANTS = {'images': {'data': 'data'}}
ROW = battery.Row(
  stitch_family, configs, PARTS, FIGURES, MISTAKES, variants=VARIANTS
)


def test_every_route_and_claim_is_measured(finished):
  config, record = finished.config, finished.record
  assert [row['method'] for row in record['rows']] == list(tables.TITLES)
  fits = record['results']['least_squares']
  counts = {'v1': 6, 'v2': 4, 'candidates': 6}
  for name, count in counts.items():
    assert len(fits['flops'][name]) == count
    trained = record['results'].get(name, {}).get('seeds', [])
    for seed in (*fits[name], *trained):
      assert np.shape(seed['test']) == (count,)
  assert len(record['claims']) == 12
  for claim in record['claims']:
    assert len(claim['seeds']) == config.seeds
    assert claim['verdict'] in ('holds', 'fails', 'open')


def test_compared_trainings_cost_the_same(finished):
  record = finished.record
  cost = {row['method']: row['cost'] for row in record['rows']}
  assert cost['anchors'] == cost['least_squares'] == 0
  for name in ('v2', 'selected', 'random', 'distilled', 'alone'):
    np.testing.assert_allclose(cost[name], cost['v1'], rtol=0.1)
  students = len(record['config']['students']['widths'])
  np.testing.assert_allclose(
    cost['distilled_each'], students * cost['v1'], rtol=0.1
  )


def test_costs_lie_between_those_of_the_anchors(finished):
  flops = finished.record['results']['least_squares']['flops']
  small, large = flops['v1'][:2]
  assert small < flops['students'][0] < large
  for name in ('v1', 'v2', 'candidates'):
    assert flops[name][:2] == [small, large]
    assert min(flops[name]) == small


def test_networks_are_selected_by_held_out_images():
  seed = {
    'held_out': np.asarray([0.1, 0.9, 0.8]),
    'test': np.asarray([0.3, 0.5, 0.7]),
  }
  found = tables._at_levels([1.0, 2.0, 3.0], np.asarray([1.0, 3.0, 2.0]), seed)
  assert found == [0.3, 0.7, 0.5]


def test_both_selections_take_one_stitch_of_each_group_of_cost(finished):
  config, record = finished.config, finished.record
  setting = settings.load(config)
  first = len(setting.depths)
  flops = record['results']['least_squares']['flops']['candidates']
  order = first + np.argsort(flops[first:], kind='stable')
  groups = np.array_split(order, config.selection.count)
  for name in joint.SELECTIONS:
    for chosen in record['results'][name]['routes']:
      assert chosen[:first] == list(range(first))
      for group in groups:
        assert len({*chosen} & {*group.tolist()}) == 1


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
