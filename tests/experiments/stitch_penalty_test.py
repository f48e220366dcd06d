"""The stitching penalty of seeds, end to end, interrupted on its way."""

import json

from matplotlib import image
import numpy as np
import pytest

from configs import stitch_penalty as configs
from experiments import stitch_penalty
from experiments._stitch_penalty import report
from tests.experiments import refusal
from wsl import stitch


class StoppedError(Exception):
  pass


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A tiny run that broke off before its second pair."""
  workdir = tmp_path_factory.mktemp('run')
  config = configs.get_config('tiny')
  measure, calls = stitch_penalty.measure, []

  def breaking(setting, networks, stage):
    if calls == [0]:
      calls.append('stopped')
      raise StoppedError
    calls.append(stage)
    return measure(setting, networks, stage)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(stitch_penalty, 'measure', breaking)
    with pytest.raises(StoppedError):
      stitch_penalty.run(config, str(workdir))
    record = stitch_penalty.run(config, str(workdir))
  return workdir, config, record, calls


def test_no_finished_part_is_computed_twice(finished):
  workdir, _, _, calls = finished
  assert calls == [0, 'stopped', 1]
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  parts = [line['part'] for line in lines if 'part' in line]
  assert parts == ['networks', 'stitch.0', 'stitch.1']


def test_the_record_says_what_ran_and_what_came_out(finished):
  workdir, config, record, _ = finished
  assert record == json.loads((workdir / 'record.json').read_text())
  assert record['config']['experiment'] == 'stitch_penalty'
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


def test_pixels_are_pixels_in_every_network(finished):
  """An MLP embeds nothing: every control is the top itself."""
  _, _, record, _ = finished
  first = record['diagonal'][0]
  for part in ('bottom', 'random', 'own'):
    assert first[part]['closed'][0] == pytest.approx(0, abs=0.5)
    assert first[part]['cka'][0] == pytest.approx(1, abs=1e-4)


def test_facts_are_judged_by_their_bounds():
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


@pytest.mark.parametrize('name', ['matrix.png', 'diagonal.png'])
def test_figures_are_images_that_show_something(finished, name):
  pixels = image.imread(finished[0] / name)
  assert pixels.shape[0] > 500
  assert pixels.shape[1] > 900
  assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


def test_a_finished_run_is_skipped_and_says_so(finished, capsys):
  workdir, config, record, _ = finished
  assert stitch_penalty.run(config, str(workdir)) == record
  assert 'finished before' in capsys.readouterr().out


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


@pytest.mark.parametrize(('changes', 'message'), MISTAKES)
def test_mistakes_are_told_in_one_line_before_any_work(
  tmp_path, changes, message
):
  config = configs.get_config('tiny')
  refusal.check(stitch_penalty.run, config, changes, message, tmp_path / 'run')


def test_variants():
  assert configs.get_config().variant == 'digits'
  assert configs.get_config('images').task == 'mnist'
  with pytest.raises(ValueError, match=r"no variant 'digts' .*'digits'"):
    configs.get_config('digts')
  for entry in configs.sweep():
    stitch.fit(np.eye(3), np.eye(3), kind=entry['kind'])
