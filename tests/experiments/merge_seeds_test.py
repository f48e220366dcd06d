"""Merges of networks from different seeds, end to end."""

import json

from matplotlib import image
import numpy as np
import pytest

from configs import merge_seeds as configs
from experiments import merge_seeds
from experiments._merge_seeds import at_budgets, many_networks
from tests.experiments import refusal


class StoppedError(Exception):
  pass


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A tiny run that broke off between its two questions."""
  workdir = tmp_path_factory.mktemp('run')
  config = configs.get_config('tiny')

  def breaking(setting):
    raise StoppedError

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(many_networks, 'networks', breaking)
    with pytest.raises(StoppedError):
      merge_seeds.run(config, str(workdir))
  record = merge_seeds.run(config, str(workdir))
  return workdir, config, record


def test_no_finished_part_is_computed_twice(finished):
  lines = (finished[0] / 'metrics.jsonl').read_text().splitlines()
  found = [p['part'] for p in map(json.loads, lines) if 'part' in p]
  assert found == ['pairs', 'budgets', 'crowd', 'many']


def test_the_record_says_what_ran_and_what_came_out(finished):
  workdir, config, record = finished
  assert record == json.loads((workdir / 'record.json').read_text())
  assert record['config']['training']['optimizer'] == 'sgd'
  levels = len(config.budgets)
  for name, found in record['results']['budgets']['methods'].items():
    assert name in at_budgets.METHODS
    for key in ('own', 'joint'):
      assert np.shape(found[key]) == (config.seeds, levels, 2)
    # A merge keeps to its budget, but for what a whole unit costs.
    cost = np.asarray(found['cost']) / np.asarray(found['cost'])[:, :1]
    assert (cost <= np.asarray(config.budgets) + 1e-9).all()
    assert (cost > np.asarray(config.budgets) - 0.1).all()
  assert list(record['results']['many']['methods']) == list(
    many_networks.METHODS
  )
  for found in record['results']['many']['methods'].values():
    shape = (config.seeds, config.many.networks - 1)
    assert np.shape(found['merged']) == shape
    assert np.shape(found['to_first']) == (config.seeds, 3)
    assert np.min(np.asarray(found['others'])[..., :2]) >= 0
  gap = record['advantage']['barrier between others']
  assert len(gap) == config.seeds


def test_at_twice_the_compute_both_networks_are_kept(finished):
  _, _, record = finished
  own = np.asarray(record['results']['budgets']['own'])
  for found in record['results']['budgets']['methods'].values():
    last = np.asarray(found['own'])[:, -1]
    np.testing.assert_allclose(last, own, atol=0.01)


def test_refitted_and_aligned_merges_keep_more(finished):
  _, _, record = finished
  budgets = {row['method']: row['own'][0][0] for row in record['budgets']}
  assert budgets['pleas'] > budgets['weight_matching'] > 0.5
  assert budgets['pleas'] > budgets['naive']
  many = {row['method']: row for row in record['many']}
  for name in many_networks.METHODS[1:]:
    assert many[name]['merged'][-1][0] > many['naive']['merged'][-1][0] + 0.1
    assert many[name]['to_first'][0][0] < many['naive']['to_first'][0][0] / 2


@pytest.mark.parametrize('name', ['budgets.png', 'many.png'])
def test_figures_are_images_that_show_something(finished, name):
  pixels = image.imread(finished[0] / name)
  assert pixels.shape[0] > 500
  assert pixels.shape[1] > 900
  assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


MISTAKES = [
  ({'tasks': ('low',)}, 'tasks: expected two, got 1'),
  ({'tasks': ('low', 'hihg')}, "no 'hihg' of the digits .did you mean 'high'"),
  ({'data': 'no/such/folder'}, r'no data at no/such/folder.*--config\.data='),
  ({'budgets': (1.0, 2.5)}, r'budgets=\[1\.0, 2\.5\]: expected growing'),
  ({'many.networks': 2}, r'many\.networks=2: expected 3 or more'),
  ({'many.held_out': 1340}, r'many\.held_out=1340: expected 1 \.\. 1092'),
  ({'training.optimizer': 'sgdd'}, "no 'sgdd' .did you mean 'sgd'"),
  ({'seeds': 0}, 'seeds=0: expected 1 or more'),
]


@pytest.mark.parametrize(('changes', 'message'), MISTAKES)
def test_mistakes_are_told_in_one_line_before_any_work(
  tmp_path, changes, message
):
  config = configs.get_config('tiny')
  refusal.check(merge_seeds.run, config, changes, message, tmp_path / 'run')


def test_variants():
  assert configs.get_config().variant == 'digits'
  assert configs.get_config('images').data == 'data'
  with pytest.raises(ValueError, match=r"no variant 'digts' .*'digits'"):
    configs.get_config('digts')
  for entry in configs.sweep():
    config = configs.get_config('digits')
    config.update_from_flattened_dict(entry)
    assert config.training.optimizer in ('sgd', 'adamw')
