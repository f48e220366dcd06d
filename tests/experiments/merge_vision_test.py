"""The comparison of merges, end to end, with two interruptions."""

import collections
import json

import numpy as np
import pytest

from configs import merge_vision as configs
from experiments import merge_vision
from experiments._merge_vision import merging
from experiments._run import entries, sweeps
from experiments._shared import merge_methods, suite_training, suites
from tests.experiments import battery
from wsl import checkpoint, mesh

TRAINED = ['base', 'experts', 'joint', 'bounds', 'grams']
METHODS = ['mean', 'sum', 'ties', 'regmean', 'tsv', 'tall_masks']

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

PARTS = [*TRAINED, *METHODS]
FIGURES = dict.fromkeys(['sweep.png', 'tasks.png'], (500, 900))
VARIANTS = {'suite8,model=vit': {'model': 'vit'}}
ROW = battery.Row(
  merge_vision, configs, PARTS, FIGURES, MISTAKES, variants=VARIANTS
)


@pytest.fixture(scope='module')
def attempts(tmp_path_factory):
  """A tiny run, interrupted in training and again between two methods."""
  workdir = tmp_path_factory.mktemp('run')
  config = configs.get_config('tiny')
  calls = collections.Counter()

  def counting(function, name, broken_at=None):
    def wrapped(*args):
      label = args[1].name if name == 'sweep' else name
      if label == broken_at:
        raise battery.StoppedError
      calls[label] += 1
      return function(*args)

    return wrapped

  def attempt(joint_breaks=False, sweep_breaks_at=None):
    with pytest.MonkeyPatch.context() as patch:
      for name in ('base', 'experts', 'joint'):
        broken = name if joint_breaks and name == 'joint' else None
        wrapped = counting(getattr(suite_training, name), name, broken)
        patch.setattr(suite_training, name, wrapped)
      wrapped = counting(merging.sweep, 'sweep', sweep_breaks_at)
      patch.setattr(merging, 'sweep', wrapped)
      return merge_vision.run(config, str(workdir))

  with pytest.raises(battery.StoppedError):
    attempt(joint_breaks=True)
  after_first = battery.parts(workdir)
  with pytest.raises(battery.StoppedError):
    attempt(sweep_breaks_at='ties')
  after_second = battery.parts(workdir)
  record = attempt()
  run = battery.Finished(workdir, config, record, None, [])
  return run, calls, after_first, after_second


@pytest.fixture(scope='module')
def finished(attempts):
  return attempts[0]


def test_each_stage_and_method_is_computed_once(attempts):
  run, calls, first, second = attempts
  assert tuple(METHODS) == tuple(run.config.methods)
  assert first == ['base', 'experts']
  assert second == [*TRAINED, 'mean', 'sum']
  wanted = ('base', 'experts', 'joint', *METHODS)
  assert calls == dict.fromkeys(wanted, 1)


def test_rows_summarise_the_test_accuracies(finished):
  config, record = finished.config, finished.record
  assert record['config']['seeds'] == config.seeds
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
  assert rows['ties']['evaluations'] == 2 * 3
  assert rows['sum']['evaluations'] == 3  # of λ
  # A mean reads two task vectors and returns one; TIES holds more.
  assert rows['mean']['peak_models'] == pytest.approx(3, rel=0.05)
  assert rows['ties']['peak_models'] > 4
  assert rows['tall_masks']['kind'] == 'family'
  merges = [m for m in config.methods if m != 'tall_masks']
  assert sorted(record['order']) == sorted(merges)


def test_choices_are_best_on_validation(finished):
  record = finished.record
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
  workdir, config, record = finished[:3]
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


def test_the_run_of_another_config_is_refused(finished):
  other = configs.get_config('tiny')
  other.base.steps = 41
  with pytest.raises(ValueError, match=r'another config \(base\.steps: 40 th'):
    merge_vision.run(other, str(finished.workdir))


def test_a_damaged_part_is_named(finished, tmp_path):
  file = tmp_path / 'parts' / 'base.safetensors'
  file.parent.mkdir()
  whole = (finished.workdir / 'parts' / 'base.safetensors').read_bytes()
  file.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match=r'base\.safetensors'):
    merge_vision.run(finished.config, str(tmp_path))


def test_the_suite_of_eight():
  assert len(configs.get_config('suite8').tasks) == 8
  with pytest.raises(ValueError, match="'model=vti' is none of model=cnn"):
    configs.get_config('suite8,model=vti')
  for entry in configs.sweep():
    config = configs.get_config('suite8')
    config.update_from_flattened_dict(entry)
    assert config.model in config.models


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)


@pytest.mark.needs_devices(8)
def test_points_equal_the_run(finished, tmp_path, monkeypatch):
  """One trace of TIES for two densities and coefficients; parts are reused."""
  trained = finished.workdir / 'parts'
  load = lambda name: checkpoint.load(trained / f'{name}.safetensors')
  monkeypatch.setattr(suite_training, 'base', lambda suite: load('base'))
  monkeypatch.setattr(suite_training, 'experts', lambda *a: load('experts'))
  calls, apply = [], merge_methods.apply
  monkeypatch.setattr(
    merge_methods, 'apply', lambda *a: (calls.append(a[1]), apply(*a))[1]
  )
  found = json.loads((trained / 'ties.json').read_text())['values']
  density, coef = found['arguments']['ties']['density'], found['coef']
  changes = [
    {'arguments.ties.density': (d,), 'coefs.default': (c,)}
    for d, c in ((0.9, 0.1), (density, coef))
  ]
  base = configs.get_config('tiny')
  base.methods = ('ties',)
  every = []
  for row in changes:
    config = base.copy_and_resolve_references()
    config.update_from_flattened_dict(row)
    place = str(tmp_path / entries.label(row))
    every.append(entries.Entry(row, config, place))
  door = merge_vision.DOOR
  (group,) = entries.groups(every, door.numbers)
  m = mesh.make('candidates:2,model:2')
  sweeps.run_group('merge_vision', door, base, group, str(tmp_path), m)
  eager = [a for a in calls if isinstance(a['ties']['density'], float)]
  assert len(calls) - len(eager) == 1
  record = sweeps.read(every[1])
  assert record['device']['mesh'] == 'candidates:2,model:2'
  for part in ('validation', 'test'):
    got = record['results']['ties'][part]
    np.testing.assert_allclose(got, found[part], atol=3e-3)
  assert sweeps.read(every[0])['results'] != record['results']

  # A point has one value of each argument.
  several = base.copy_and_resolve_references()
  with pytest.raises(ValueError, match="arguments: 'ties' has 2 candidates"):
    door.points(base, [several], str(tmp_path), None)


def test_the_sweep_depends_on_the_variant():
  assert configs.sweep('suite8') == [{'model': 'cnn'}, {'model': 'vit'}]
  found = configs.sweep('digits')
  numbers = merge_vision.DOOR.numbers
  made = [entries.Entry(row, None, '') for row in found]
  assert len(found) == 96
  assert [len(g.numbers) for g in entries.groups(made, numbers)] == [24, 72]
