"""The stitching penalty of seeds, end to end, with an interruption."""

import numpy as np
import pytest

from configs import stitch_penalty as configs
from experiments import stitch_penalty
from experiments._stitch_penalty import report
from tests.experiments import battery
from wsl import stitch

MISTAKES = [
  ({'networks': 1}, 'networks=1: expected 2 or more'),
  ({'kind': 'afine'}, "no kind 'afine' .*'affine'"),
  ({'model.module': 'MPL'}, "no 'MPL' in wsl.models .*'MLP'"),
  ({'model.arguments.width': 3}, "'width' .did you mean 'widths'"),
  ({'held_out': 2000}, r'validation=2000: expected 1 \.\. 1347'),
  ({'fit.batch_size': 301}, r'fit\.batch_size=301: expected 1 \.\. 300'),
  ({'adapters.steps': 0}, r'adapters\.steps=0: expected 1 or more'),
  ({'training.optimizer': 'sgdd'}, "no 'sgdd' .did you mean 'sgd'"),
  ({'data': 'no/such/folder'}, r'no data at no/such/folder.*--config\.data='),
]

PARTS = ['networks', 'stitch.0', 'stitch.1']
FIGURES = dict.fromkeys(['matrix.png', 'diagonal.png'], (500, 900))
# (module, function, condition, finished parts)
INTERRUPT = (stitch_penalty, 'measure', lambda *args: args[2] == 1, 2)
VARIANTS = {'images': {'task': 'mnist'}}
ROW = battery.Row(
  stitch_penalty, configs, PARTS, FIGURES, MISTAKES, INTERRUPT, VARIANTS
)


def test_each_pair_is_measured_once(finished):
  stages = [args and args[2] for args in finished.calls]
  assert stages == [0, None, 1]


def test_the_table_summarises_the_pairs(finished):
  config, record = finished.config, finished.record
  assert len(record['results']) == config.networks
  every = [[p, q] for p in range(3) for q in range(3)]
  for one in record['results']:
    assert one['closed']['pairs'] == every
    assert one['trained']['pairs'] == [[i, i] for i in range(3)]
    assert 0 <= one['closed']['error'] == one['trained']['error'] <= 1
    assert one['closed']['own']['penalty'] == [0.0] * 9
    np.testing.assert_allclose(one['closed']['own']['cka'], 1, atol=1e-4)
  errors = [100 * one['closed']['error'] for one in record['results']]
  assert record['error'] == pytest.approx(
    [np.mean(errors), np.std(errors, ddof=1)]
  )
  for row in record['diagonal']:
    at = every.index([row['position']] * 2)
    for part in ('bottom', 'random', 'own'):
      found = [
        100 * r['closed'][part]['penalty'][at] for r in record['results']
      ]
      assert row[part]['closed'][0] == pytest.approx(np.mean(found))
  matrix = np.asarray(record['matrix']['bottom']['penalty'])
  assert matrix.shape == (3, 3)
  for row in record['diagonal']:
    p = row['position']
    assert matrix[p, p] == pytest.approx(row['bottom']['closed'][0])


def test_stitches_before_the_first_block_cost_nothing(finished):
  """An MLP has no embedding: every bottom is the identity there."""
  record = finished.record
  first = record['diagonal'][0]
  for part in ('bottom', 'random', 'own'):
    assert first[part]['closed'][0] == pytest.approx(0, abs=0.5)
    assert first[part]['cka'][0] == pytest.approx(1, abs=1e-4)


def test_facts_are_judged_by_their_thresholds():
  def row(position, **penalties):
    parts = {
      part: {'closed': [value, 0.0], 'trained': [value, 0.0]}
      for part, value in penalties.items()
    }
    return {'position': position, **parts}

  diagonal = [
    row(0, bottom=1.0, random=2.0, own=0.0),
    row(5, bottom=4.0, random=9.0, own=0.0),
    row(10, bottom=6.0, random=30.0, own=0.0),
  ]
  facts = report._facts(diagonal)
  for way in ('closed', 'trained'):
    found = {name: fact['holds'] for name, fact in facts[way].items()}
    assert found == {
      'other seed small': False,
      'random small early': True,
      'random large deep': True,
      'itself none': True,
    }
    assert facts[way]['random small early']['points'] == 2.0


def test_the_sweep():
  for entry in configs.sweep():
    stitch.fit(np.eye(3), np.eye(3), kind=entry['kind'])


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
