"""Whole networks, incubated ones, and a reassembled zoo, end to end."""

import jax
import numpy as np
import pytest

from configs import assemble as configs
from experiments import assemble
from experiments._assemble import dery, incubation, settings
from tests.experiments import battery

PARTS = ['starts', 'end_to_end.1', 'incubation.1', 'zoo', 'reassembly']

MISTAKES = [
  ({'modules': 3}, 'modules=3: expected a divisor of the depth, 4'),
  ({'steps': 10}, r"steps=10: the budget 1 pays for 0 steps of 'fine_tuning'"),
  ({'budgets': (1.0, 0.5)}, r'budgets=\[1\.0, 0\.5\]: expected growing'),
  (
    {'fractions': (0.1, 0.5)},
    r'fractions=.*0\.5\]: the last one must be 1',
  ),
  ({'shares.meta': 0.9}, 'shares=.*adding up to 1'),
  ({'model.arguments.widths': (32, 64)}, 'model: blocks of MLP differ'),
  ({'model.module': 'MPL'}, "no 'MPL' in wsl.models .did you mean 'MLP'"),
  ({'task': 'uprihgt'}, "'uprihgt' of the digits .did you mean 'upright'"),
  ({'data': 'no/such/folder'}, r'no data at no/such/folder.*--config\.data='),
  ({'zoo.networks.deep.module': 'MPL'}, "no 'MPL' in wsl.models"),
  ({'zoo.training.optimizer': 'sgdd'}, "no 'sgdd' .did you mean 'sgd'"),
  ({'zoo.statistics.examples': 3}, r'zoo\.statistics\.examples=3: expected 4'),
]

FIGURES = dict.fromkeys(['assemble.png'], (500, 900))
# (module, function, condition, finished parts)
INTERRUPT = (dery, 'trained', lambda setting: True, 3)
VARIANTS = {'images': {'data': 'data'}}
ROW = battery.Row(
  assemble, configs, PARTS, FIGURES, MISTAKES, INTERRUPT, VARIANTS
)


def test_both_methods_learn_at_every_fraction(finished):
  config, record = finished.config, finished.record
  shape = (len(config.fractions), config.seeds)
  stages = {'end_to_end': ['network']}
  stages['incubation'] = ['meta', 'assembled', 'network']
  for method, names in stages.items():
    found = record['results'][method]['1']['found']
    assert list(found) == names
    for splits in found.values():
      assert np.shape(splits['test']) == np.shape(splits['held_out']) == shape
  assert len(record['data']) == 2 * len(config.fractions)
  assert set(record['claims']) == {'budget 1', 'data 0.1', 'data 1'}
  # Both learn: chance is 10 %.
  for method in stages:
    tested = record['results'][method]['1']['found']['network']['test']
    assert np.mean(tested[-1]) > 0.4


def test_both_methods_get_the_same_compute(finished):
  record = finished.record
  for row in record['budgets']:
    # Four stages of a few segments each: a half of one is a tenth here.
    assert abs(row['jobs'] / row['budget'] - 1) < 0.2
    assert row['longest'] <= row['jobs'] <= row['run']


def test_the_default_spends_equal_compute():
  setting = settings.load(configs.get_config('digits'))
  stages = ('meta', 'modules', 'fine_tuning')
  for budget in setting.config.budgets:
    steps = settings.plan(setting, budget)
    whole = settings.flops(setting, steps, ('end_to_end',))['jobs']
    parts = settings.flops(setting, steps, stages)['jobs']
    assert abs(parts / whole - 1) < 0.05


def test_a_step_costs_what_its_products_do():
  """Blocks alone, for a network whose products are all in its blocks."""
  config = configs.get_config('tiny')
  config.model.arguments.widths = (64,) * 6
  config.modules = 3
  setting = settings.load(config)
  block, head = 2 * 64 * 64, 2 * 64 * 10
  steps = settings.steps_of(setting)
  assert steps['end_to_end'].jobs == 18 * block + 3 * head
  assert steps['meta'].jobs == 9 * block + 3 * head
  # The first slot: two blocks trained, two after them passed through; then one
  # before and one after; then two before, and the head is trained.
  jobs = [
    (6 + 0 + 4) * block + 2 * head,
    (6 + 1 + 2) * block + 2 * head,
    (6 + 2 + 0) * block + 3 * head,
  ]
  assert steps['modules'].jobs == sum(jobs)
  assert steps['modules'].longest == max(jobs)
  assert steps['modules'].run == 3 * (12 * block + 3 * head)


def test_fractions_of_a_seed_are_nested():
  setting = settings.load(configs.get_config('tiny'))
  rows = incubation.rows(setting, (0.1, 0.5, 1.0)).reshape(3, 2, -1)
  count = rows.shape[-1]
  for s in range(2):
    few, half, every = (set(row.tolist()) for row in rows[:, s])
    assert few < half < every
    assert [len(x) for x in (few, half, every)] == [115, 574, count]


def test_the_zoo_is_cut_whole_and_reassembled_within_its_budget(finished):
  config, record = finished.config, finished.record
  (seed,) = record['results']['zoo']['seeds']
  for name, pieces in seed['partition'].items():
    depth = len(config.zoo.networks[name].arguments.widths)
    nodes = [i for start, stop in pieces for i in range(start, stop)]
    assert nodes == list(range(depth))
  whole = max(one['flops'] for one in seed['networks'].values())
  for one in seed['choices'].values():
    assert len(one['pieces']) == config.zoo.blocks
    assert one['flops'] <= whole
    assert 0 < one['joined'] <= 1


def test_the_similarity_of_a_zoo_is_one_with_itself():
  config = configs.get_config('tiny')
  del config.zoo.networks['deep']
  setting = settings.load(config)
  network = config.zoo.networks.wide
  module = dery.module_of(network)
  params = module.init(jax.random.key(0), setting.images.train[0][:1])
  stacked = jax.tree.map(lambda x: x[None], {'wide': params})
  found = dery.similarity(dery.cut(setting, stacked, 0))
  assert found.shape == (2, 2)
  np.testing.assert_allclose(np.diag(found), 1, rtol=1e-4)
  np.testing.assert_array_equal(found, found.T)
  assert found[0, 1] < 1


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
