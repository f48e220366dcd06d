"""The experiment on barriers, end to end, with an interruption."""

import functools

import jax
import numpy as np
import pytest

from configs import align_barrier as configs
from experiments import align_barrier
from experiments._align_barrier import (
  pairings,
  path_metrics,
  points,
  settings,
)
from experiments._shared import side_by_side
from tests.experiments import battery
from wsl import checkpoint, mesh, tree

PAIRINGS = [
  'naive',
  'random',
  'weight_matching',
  'activation_matching',
  'planted',
  'recovered',
]
MATCHES = ['weight_matching', 'activation_matching', 'recovered']

MISTAKES = [
  ({'methods': ('weight_matchin',)}, "did you mean 'weight_matching'"),
  ({'methods': ('permute',)}, "'permute' does not match two models"),
  ({'methods': ()}, 'methods: none given'),
  ({'arguments': {'sinkhorn': {}}}, "no 'sinkhorn' among the methods"),
  (
    {'arguments': {'weight_matching': {'strats': 3}}},
    "no argument 'strats' .did you mean 'starts'",
  ),
  (
    {'arguments': {'weight_matching': {'key': 3}}},
    "gives weight_matching its 'key': take it out",
  ),
  ({'model.module': 'MPL'}, "no 'MPL' in wsl.models .*'MLP'"),
  ({'model.arguments.width': 3}, "'width' .did you mean 'widths'"),
  ({'training.optimizer': 'sgdd'}, "no 'sgdd' .did you mean 'sgd'"),
  ({'training.batch_size': 5000}, r'batch_size=5000: expected 1 \.\. 1348'),
  ({'statistics.batch_size': 300}, r'batch_size=300: expected 1 \.\. 256'),
  ({'points': 4}, 'points=4: expected an odd number'),
  ({'repair.points': 1}, r'repair\.points=1: expected an odd number'),
  ({'threshold': 2.0}, r'threshold=2\.0: expected 0 \.\. 1'),
  ({'pairs': 0}, 'pairs=0: expected 1 or more'),
  ({'data': 'no/such/folder'}, r'no data at no/such/folder.*--config\.data='),
]

PARTS = ['networks', *MATCHES, *(f'path.{name}' for name in PAIRINGS)]
FIGURES = dict.fromkeys(['paths.png', 'layers.png'], (500, 900))
# (module, function, condition, finished parts)
INTERRUPT = (path_metrics, 'along_line', lambda *a, repaired: not repaired, 5)
VARIANTS = {
  'cifar_resnet': {'model.arguments.norm': 'batch'},
  'mnist_mlp': {'model.arguments.widths': (512, 512, 512)},
}
ROW = battery.Row(
  align_barrier, configs, PARTS, FIGURES, MISTAKES, INTERRUPT, VARIANTS
)


def test_barriers_are_those_of_the_recorded_paths(finished):
  config, record = finished.config, finished.record
  training = record['config']['training']
  assert training['optimizer'] == 'sgd'
  assert training['learning_rate'] == 0.1
  assert training['weight_decay'] == 1e-4
  assert list(record['results']) == PAIRINGS
  for name, found in record['results'].items():
    kinds = ['plain', 'repaired'][: 1 if name in pairings.CONTROLS else 2]
    for kind in kinds:
      assert len(found[kind]) == config.pairs
      points = config.points if kind == 'plain' else config.repair.points
      for path in found[kind]:
        assert len(path['t']) == points
        for split in ('train', 'test'):
          loss = np.asarray(path['values'][split]['loss'])
          error = np.asarray(path['values'][split]['error'])
          assert loss.shape == error.shape == (points,)
          assert ((error >= 0) & (error <= 1)).all()
          rise = loss.max() - loss[[0, -1]].mean()
          assert path['above_mean'][split]['loss'] == pytest.approx(rise)
          chord = np.linspace(loss[0], loss[-1], points)
          rise = (loss - chord).max()
          assert path['above_chord'][split]['loss'] == pytest.approx(
            rise, abs=1e-6
          )
    assert set(found['singular'][0]) == {
      'params/block_0/dense/kernel',
      'params/block_1/dense/kernel',
      'params/output/kernel',
    }


def test_matching_lowers_the_barrier_and_the_controls_hold(finished):
  record = finished.record
  rows = {row['title']: row for row in record['rows']}
  height = {k: v['above_chord']['train loss'][0] for k, v in rows.items()}
  naive = height['as it is']
  assert height['weight matching'] < naive / 3
  assert height['activation matching'] < naive / 3
  assert height['control: at random'] > naive / 2
  assert height['control: first, moved'] > naive / 2
  assert height['control: first, matched'] == pytest.approx(0, abs=1e-6)
  assert height['weight matching + REPAIR'] < height['weight matching']
  assert record['recovered'] == [True, True]
  assert rows['weight matching']['singular'][0] > 0.1
  assert abs(rows['control: at random']['singular'][0]) < 0.1
  assert 5 < 100 * rows['weight matching']['l2_reduction'][0] < 40
  assert rows['control: first, matched']['l2_reduction'][0] == 1
  assert (
    rows['weight matching']['variance'][0] > (rows['as it is']['variance'][0])
  )


@pytest.fixture(scope='module')
def stored(finished):
  """Returns the setting of the finished run, and its networks."""
  file = finished.workdir / 'parts' / 'networks.safetensors'
  return settings.load(finished.config), checkpoint.load(file)


@pytest.mark.needs_devices(8)
def test_a_mesh_changes_networks_and_paths_by_rounding(finished, stored):
  setting, networks = stored
  setting = setting._replace(mesh=mesh.make('candidates:2,model:4'))
  same = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
  jax.tree.map(same, pairings.trained(setting), networks)
  a, b = (side_by_side.pick(networks, 0, i) for i in range(2))
  found = path_metrics.along_line(setting, a, b, repaired=False)['plain']
  wanted = finished.record['results']['naive']['plain'][0]
  jax.tree.map(same, found, wanted)


def test_learning_rates_are_candidates_of_one_trace(stored):
  setting, networks = stored
  config, traces = setting.config, []
  group = points.points('a', align_barrier.answer, config, [], '', None)

  def fn(numbers):
    traces.append(numbers)
    return group.fn(numbers)

  rates = {'training.learning_rate': np.float32([0.1, 0.02])}
  m = mesh.make('candidates:1')
  found = mesh.map_candidates(fn, rates, mesh=m, batch=1)
  assert len(traces) == 1
  first = pairings.paired(setting, side_by_side.pick(found, 0))
  same = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
  jax.tree.map(same, first, networks)
  slow = pairings.paired(setting, side_by_side.pick(found, 1))
  moved = jax.tree.map(lambda x, y: np.asarray(x - y), slow, networks)
  assert tree.norm(moved) > 1


def test_the_sweep():
  optimizers = [entry['training.optimizer'] for entry in configs.sweep()]
  assert optimizers == ['sgd', 'sgd', 'adamw', 'adamw']


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
