"""The first experiment, end to end, interrupted twice on its way."""

import collections
import json

from matplotlib import image
import numpy as np
import pytest

from configs import merge_vision as configs
from experiments import merge_vision
from experiments._shared import suite_training, suites
from tests.experiments import refusal
from wsl import checkpoint

PARTS = ['base', 'experts', 'joint', 'bounds', 'grams']


class StoppedError(Exception):
  pass


def parts(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [p['part'] for p in map(json.loads, lines) if 'part' in p]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A tiny run that broke off in training and again between two methods."""
  workdir = tmp_path_factory.mktemp('run')
  config = configs.get_config('tiny')
  calls = collections.Counter()

  def counting(function, name, broken_at=None):
    def wrapped(*args):
      label = args[1].name if name == 'sweep' else name
      if label == broken_at:
        raise StoppedError
      calls[label] += 1
      return function(*args)

    return wrapped

  def attempt(joint_breaks=False, sweep_breaks_at=None):
    with pytest.MonkeyPatch.context() as patch:
      for name in ('base', 'experts', 'joint'):
        broken = name if joint_breaks and name == 'joint' else None
        wrapped = counting(getattr(suite_training, name), name, broken)
        patch.setattr(suite_training, name, wrapped)
      wrapped = counting(merge_vision.sweep, 'sweep', sweep_breaks_at)
      patch.setattr(merge_vision, 'sweep', wrapped)
      return merge_vision.run(config, str(workdir))

  with pytest.raises(StoppedError):
    attempt(joint_breaks=True)
  after_first = parts(workdir)
  with pytest.raises(StoppedError):
    attempt(sweep_breaks_at='ties')
  after_second = parts(workdir)
  record = attempt()
  return workdir, config, record, calls, (after_first, after_second)


def test_no_finished_part_is_computed_twice(finished):
  workdir, config, _, calls, (first, second) = finished
  assert first == ['base', 'experts']
  assert second == [*PARTS, 'mean', 'sum']
  assert parts(workdir) == [*PARTS, *config.methods]
  wanted = ('base', 'experts', 'joint', *config.methods)
  assert calls == dict.fromkeys(wanted, 1)


def test_the_record_says_what_ran_and_what_came_out(finished):
  workdir, config, record, _, _ = finished
  assert record == json.loads((workdir / 'record.json').read_text())
  assert record['config']['experiment'] == 'merge_vision'
  assert record['config']['seeds'] == config.seeds
  assert set(record['versions']) >= {'wsl', 'jax', 'flax', 'python'}
  assert record['device']['platform'] == 'cpu'
  assert set(record['seconds']) == {*PARTS, *config.methods}
  assert all(seconds > 0 for seconds in record['seconds'].values())
  rows = {row['method']: row for row in record['rows']}
  assert list(rows) == ['base', 'experts', 'joint', *config.methods]
  for row in rows.values():
    test = np.asarray(row['test'])
    assert test.shape == (config.seeds, len(config.tasks))
    assert row['mean'] == pytest.approx(test.mean())
    assert row['std'] == pytest.approx(test.mean(1).std(ddof=1))
    assert row['worst']['accuracy'] == pytest.approx(test.mean(0).min())
    assert row['worst']['task'] in config.tasks
  assert rows['experts']['normalised'] == 1
  assert rows['base']['mean'] < rows['experts']['mean']
  assert rows['regmean']['data'] == 'unlabelled'
  assert rows['ties']['data'] == 'none'
  assert rows['ties']['arguments']['ties']['density'] in (0.2, 0.5)
  assert rows['ties']['published'] == 72.2
  assert rows['tall_masks']['kind'] == 'family'
  merges = [m for m in config.methods if m != 'tall_masks']
  assert sorted(record['order']) == sorted(merges)


def test_what_is_chosen_is_best_on_validation(finished):
  _, _, record, _, _ = finished
  for row in record['rows']:
    if row['kind'] == 'merge':
      curve = row['curve']
      best = int(np.argmax(curve['validation']))
      assert row['coef'] == curve['coefs'][best]
      assert row['validation_mean'] == pytest.approx(max(curve['validation']))
  merges = [row for row in record['rows'] if row['kind'] == 'merge']
  best = max(merges, key=lambda row: row['validation_mean'])
  assert record['winner']['method'] == best['method']


def test_the_checkpoint_is_the_winner(finished):
  workdir, config, record, _, _ = finished
  file = workdir / 'merged.safetensors'
  notes = {
    k: v for k, v in checkpoint.metadata(file).items() if k != 'wsl.tree'
  }
  notes = {key: json.loads(value) for key, value in notes.items()}
  assert notes['method'] == record['winner']['method']
  assert notes['coef'] == record['winner']['coef']
  suite = suites.load(config)
  params = checkpoint.load(file)
  found = []
  for t, (x, y) in enumerate(zip(*suite.tasks.test)):
    head = {key: value[t] for key, value in params['heads'].items()}
    own = {'encoder': params['encoder'], 'head': head}
    found.append((np.asarray(suite.classify(own, x)).argmax(1) == y).mean())
  assert np.mean(found) == pytest.approx(record['winner']['test'], abs=2e-3)


@pytest.mark.parametrize('name', ['sweep.png', 'tasks.png'])
def test_figures_are_images_that_show_something(finished, name):
  pixels = image.imread(finished[0] / name)
  assert pixels.shape[0] > 500
  assert pixels.shape[1] > 900
  assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


def test_a_finished_run_is_skipped_and_says_so(finished, capsys):
  workdir, config, record, _, _ = finished
  assert merge_vision.run(config, str(workdir)) == record
  assert 'finished before' in capsys.readouterr().out


def test_the_run_of_another_config_is_refused(finished):
  other = configs.get_config('tiny')
  other.base.steps = 41
  with pytest.raises(ValueError, match=r'another config \(base\.steps: 40 th'):
    merge_vision.run(other, str(finished[0]))


def test_a_damaged_part_is_named(finished, tmp_path):
  file = tmp_path / 'parts' / 'base.safetensors'
  file.parent.mkdir()
  whole = (finished[0] / 'parts' / 'base.safetensors').read_bytes()
  file.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match=r'base\.safetensors'):
    merge_vision.run(finished[1], str(tmp_path))


MISTAKES = [
  ({'methods': ('mean', 'tise')}, r"no 'tise' in wsl\.merge.*mean 'ties'"),
  ({'methods': ('dare',)}, "'dare' edits task vectors.*'\\+sum'"),
  ({'methods': ('fisher', 'slerp+sum')}, "slerp needs an argument 't'"),
  ({'methods': ()}, 'methods: none given'),
  ({'arguments.ties': {'densty': 0.2}}, "'densty' .did you mean 'density'"),
  ({'arguments.tyes': {'density': 0.2}}, "arguments: no 'tyes'.*'ties'"),
  ({'arguments.ties': {'density': (0.2, 1.4)}}, r"'ties': .*density=1\.4"),
  ({'arguments.regmean': {'shrink': 0.9, 'grams': 1}}, "its 'grams': take"),
  ({'arguments.ties': {}}, "ties needs an argument 'density'"),
  ({'coefs.tis': (1.0,)}, "coefs: no 'tis'.*'ties'"),
  ({'model': 'mpl'}, "model: no 'mpl' .did you mean 'mlp'"),
  ({'models.mlp.module': 'MPL'}, "no 'MPL' in wsl.models .*'MLP'"),
  ({'models.mlp.arguments.width': 3}, "'width' .did you mean 'widths'"),
  ({'tasks': ('upright', 'invrted')}, "'invrted' .* .did you mean 'inverted'"),
  ({'data': 'no/such/folder'}, r'no data at no/such/folder.*--config\.data='),
  ({'validation': 5000}, r'validation=5000: expected 1 \.\. 1347'),
  ({'experts.batch_size': 2000}, r'experts\.batch_size=2000: expected 1 \.\.'),
  ({'seeds': 0}, 'seeds=0: expected 1 or more'),
]


@pytest.mark.parametrize(('changes', 'message'), MISTAKES)
def test_mistakes_are_told_in_one_line_before_any_work(
  tmp_path, changes, message
):
  config = configs.get_config('tiny')
  refusal.check(merge_vision.run, config, changes, message, tmp_path / 'run')


def test_variants():
  assert configs.get_config().variant == 'digits'
  assert configs.get_config('suite8,model=vit').model == 'vit'
  assert len(configs.get_config('suite8').tasks) == 8
  with pytest.raises(ValueError, match=r"no variant 'digts' .*'digits'"):
    configs.get_config('digts')
  with pytest.raises(ValueError, match="'model=vti' is none of model=cnn"):
    configs.get_config('suite8,model=vti')
  for entry in configs.sweep():
    config = configs.get_config('suite8')
    config.update_from_flattened_dict(entry)
    assert config.model in config.models
