"""The barrier experiment, end to end, interrupted on its way."""

import json

from matplotlib import image
import numpy as np
import pytest

from configs import align_barrier as configs
from experiments import align_barrier
from experiments._align_barrier import path_metrics
from tests.experiments import refusal

WAYS = [
  'naive',
  'random',
  'weight_matching',
  'activation_matching',
  'planted',
  'recovered',
]


class StoppedError(Exception):
  pass


def parts(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [p['part'] for p in map(json.loads, lines) if 'part' in p]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A tiny run that broke off while it walked."""
  workdir = tmp_path_factory.mktemp('run')
  config = configs.get_config('tiny')
  lines = path_metrics.lines

  def breaking(setting, a, b, *, repaired):
    if not repaired:
      raise StoppedError
    return lines(setting, a, b, repaired=repaired)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(align_barrier._walks, 'lines', breaking)
    with pytest.raises(StoppedError):
      align_barrier.run(config, str(workdir))
  first = parts(workdir)
  record = align_barrier.run(config, str(workdir))
  return workdir, config, record, first


def test_no_finished_part_is_computed_twice(finished):
  workdir, _, _, first = finished
  matches = ['weight_matching', 'activation_matching', 'recovered']
  assert first == ['networks', *matches, 'path.naive']
  walked = [f'path.{way}' for way in WAYS]
  assert parts(workdir) == ['networks', *matches, *walked]


def test_the_record_says_what_ran_and_what_came_out(finished):
  workdir, config, record, _ = finished
  assert record == json.loads((workdir / 'record.json').read_text())
  assert record['config']['experiment'] == 'align_barrier'
  training = record['config']['training']
  assert training['optimizer'] == 'sgd'
  assert training['learning_rate'] == 0.1
  assert training['weight_decay'] == 1e-4
  assert list(record['results']) == WAYS
  for way, found in record['results'].items():
    kinds = ['plain', 'repaired'][: 1 if way in align_barrier.CONTROLS else 2]
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
  _, _, record, _ = finished
  rows = {row['title']: row for row in record['rows']}
  height = {k: v['above_chord']['train loss'][0] for k, v in rows.items()}
  naive = height['as it is']
  assert height['weight matching'] < naive / 3
  assert height['activation matching'] < naive / 3
  assert height['control: at random'] > naive / 2
  assert height['control: first, permuted'] > naive / 2
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


@pytest.mark.parametrize('name', ['paths.png', 'layers.png'])
def test_figures_are_images_that_show_something(finished, name):
  pixels = image.imread(finished[0] / name)
  assert pixels.shape[0] > 500
  assert pixels.shape[1] > 900
  assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


def test_a_finished_run_is_skipped_and_says_so(finished, capsys):
  workdir, config, record, _ = finished
  assert align_barrier.run(config, str(workdir)) == record
  assert 'finished before' in capsys.readouterr().out


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


@pytest.mark.parametrize(('changes', 'message'), MISTAKES)
def test_mistakes_are_told_in_one_line_before_any_work(
  tmp_path, changes, message
):
  config = configs.get_config('tiny')
  refusal.check(align_barrier.run, config, changes, message, tmp_path / 'run')


def test_variants():
  assert configs.get_config().variant == 'digits'
  assert configs.get_config('cifar_resnet').model.arguments.norm == 'batch'
  assert configs.get_config('mnist_mlp').model.arguments.widths == (512,) * 3
  with pytest.raises(ValueError, match=r"no variant 'digts' .*'digits'"):
    configs.get_config('digts')
  for entry in configs.sweep():
    config = configs.get_config('digits')
    config.update_from_flattened_dict(entry)
    assert config.training.optimizer in ('sgd', 'adamw')
