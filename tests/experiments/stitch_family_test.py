"""A family of networks made of others, end to end."""

import json

from matplotlib import image
import numpy as np
import pytest

from configs import stitch_family as configs
from experiments import stitch_family
from experiments._stitch_family import joint, settings, tables
from tests.experiments import refusal

PARTS = (
  *('anchors', 'least_squares', 'v1', 'v2', 'selections'),
  *('distilled', 'alone', 'distilled_each'),
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  config = configs.get_config('tiny')
  record = stitch_family.run(config, str(workdir))
  return workdir, config, record


def test_the_record_says_what_ran_and_what_came_out(finished):
  workdir, config, record = finished
  assert record == json.loads((workdir / 'record.json').read_text())
  assert tuple(record['seconds']) == PARTS
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


def test_a_finished_run_is_not_run_again(finished):
  workdir, config, record = finished
  before = (workdir / 'metrics.jsonl').read_text()
  assert stitch_family.run(config, str(workdir)) == record
  assert (workdir / 'metrics.jsonl').read_text() == before


def test_trainings_that_are_compared_cost_the_same(finished):
  _, _, record = finished
  cost = {row['method']: row['cost'] for row in record['rows']}
  assert cost['anchors'] == cost['least_squares'] == 0
  for name in ('v2', 'selected', 'random', 'distilled', 'alone'):
    np.testing.assert_allclose(cost[name], cost['v1'], rtol=0.1)
  students = len(record['config']['students']['widths'])
  np.testing.assert_allclose(
    cost['distilled_each'], students * cost['v1'], rtol=0.1
  )


def test_costs_lie_between_those_of_the_anchors(finished):
  flops = finished[2]['results']['least_squares']['flops']
  small, large = flops['v1'][:2]
  assert small < flops['students'][0] < large
  for name in ('v1', 'v2', 'candidates'):
    assert flops[name][:2] == [small, large]
    assert min(flops[name]) == small


def test_what_held_out_images_choose_is_measured_on_others():
  seed = {
    'held_out': np.asarray([0.1, 0.9, 0.8]),
    'test': np.asarray([0.3, 0.5, 0.7]),
  }
  found = tables._at_levels([1.0, 2.0, 3.0], np.asarray([1.0, 3.0, 2.0]), seed)
  assert found == [0.3, 0.7, 0.5]


def test_both_choices_take_one_stitch_of_each_group_of_cost(finished):
  _, config, record = finished
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


@pytest.mark.parametrize('name', ['pareto.png', 'similarity.png'])
def test_figures_are_images_that_show_something(finished, name):
  pixels = image.imread(finished[0] / name)
  assert pixels.shape[0] > 500
  assert pixels.shape[1] > 900
  assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


MISTAKES = [
  ({'task': 'uprihgt'}, "no transformation 'uprihgt' .*did you mean 'upright'"),
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


@pytest.mark.parametrize(('changes', 'message'), MISTAKES)
def test_mistakes_are_told_in_one_line_before_any_work(
  tmp_path, changes, message
):
  config = configs.get_config('tiny')
  refusal.check(stitch_family.run, config, changes, message, tmp_path / 'run')


def test_variants():
  assert configs.get_config().variant == 'digits'
  assert configs.get_config('images').data == 'data'
  with pytest.raises(ValueError, match=r"no variant 'digts' .*'digits'"):
    configs.get_config('digts')
  for entry in configs.sweep():
    config = configs.get_config('digits')
    config.update_from_flattened_dict(entry)
