"""Merges of networks from different seeds, end to end."""

import numpy as np
import pytest

from configs import merge_seeds as configs
from experiments import merge_seeds
from experiments._merge_seeds import at_budgets, many_networks
from tests.experiments import battery

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

PARTS = ['pairs', 'budgets', 'crowd', 'many']
FIGURES = dict.fromkeys(['budgets.png', 'many.png'], (500, 900))
# (module, function, condition, finished parts)
INTERRUPT = (many_networks, 'networks', lambda setting: True, 2)
VARIANTS = {'images': {'data': 'data'}}
ROW = battery.Row(
  merge_seeds, configs, PARTS, FIGURES, MISTAKES, INTERRUPT, VARIANTS
)


def test_merges_keep_to_their_budgets(finished):
  config, record = finished.config, finished.record
  assert record['config']['training']['optimizer'] == 'sgd'
  levels = len(config.budgets)
  for name, found in record['results']['budgets']['methods'].items():
    assert name in at_budgets.METHODS
    for key in ('own', 'joint'):
      assert np.shape(found[key]) == (config.seeds, levels, 2)
    # A merge is within its budget, and below it by less than a unit.
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
  record = finished.record
  own = np.asarray(record['results']['budgets']['own'])
  for found in record['results']['budgets']['methods'].values():
    last = np.asarray(found['own'])[:, -1]
    np.testing.assert_allclose(last, own, atol=0.01)


def test_refitted_and_aligned_merges_keep_more(finished):
  record = finished.record
  budgets = {row['method']: row['own'][0][0] for row in record['budgets']}
  assert budgets['pleas'] > budgets['weight_matching'] > 0.5
  assert budgets['pleas'] > budgets['naive']
  many = {row['method']: row for row in record['many']}
  for name in many_networks.METHODS[1:]:
    assert many[name]['merged'][-1][0] > many['naive']['merged'][-1][0] + 0.1
    assert many[name]['to_first'][0][0] < many['naive']['to_first'][0][0] / 2


def test_the_sweep():
  for entry in configs.sweep():
    assert entry['training.optimizer'] in ('sgd', 'adamw')


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
