"""Searches over recipes of merges, end to end, with an interruption."""

import json

import jax
import numpy as np
import pytest

from configs import recipes as configs
from experiments import recipes
from experiments._recipes import report, searches, settings
from experiments._run import verdicts
from experiments._shared import merge_methods, suites
from tests.experiments import battery
from wsl import checkpoint, deltas, merge

TIES = 'recipes.ties'
MISTAKES = [
  ({'searches': ('cmeas',)}, "searches: no 'cmeas' .did you mean 'cmaes'"),
  ({'batch': 17}, r'batch=17: expected 2 \.\. 16'),
  ({'recipes': {}}, 'recipes: none given'),
  (
    {f'{TIES}.steps': 'trin+sum'},
    r"recipes\.ties: .*'trim' is not a step",
  ),
  ({f'{TIES}.steps': 'trim+summ'}, r"recipes\.ties: .*no 'summ'.*'sum'"),
  ({f'{TIES}.steps': 'trim'}, r"recipes\.ties: .*'trim' edits task vectors"),
  (
    {f'{TIES}.numbers': {'density': (0, 1)}},
    "'density' is neither 'coef' nor 'FUNCTION/ARGUMENT'",
  ),
  (
    {f'{TIES}.numbers': {'trim/densty': (0.1, 1.0)}},
    r"recipes\.ties: .*'densty' .did you mean 'density'",
  ),
  (
    {f'{TIES}.numbers': {'trim/density': (0.1, 1.4)}},
    r'recipes\.ties: .*density=1\.4',
  ),
  (
    {f'{TIES}.numbers': {'trim/density': (1.0, 0.1)}},
    r'numbers\.trim/density=\(1\.0, 0\.1\): expected \(low, high\)',
  ),
  (
    {f'{TIES}.numbers': {'trim/density': (0.1, 1.0, 5)}},
    r'a grid of 5 numbers has at least 32 points, evaluations=16',
  ),
]
ROW = battery.Row(
  recipes,
  configs,
  ['base', 'experts', 'ties.random', 'ties.cmaes', 'ties.grid'],
  {'curves.png': (400, 700), 'maps.png': (500, 800)},
  MISTAKES,
  (searches, '_curve', lambda *args: args[2].points.shape == (16, 2), 2),
  {'suite8': {'searches': ('random', 'cmaes')}},
)


def test_the_best_point_is_the_best_of_the_journal(finished):
  folder = finished.workdir / 'parts'
  for method in settings.SEARCHES:
    found = finished.record['results']['ties'][method]
    for seed in range(2):
      file = folder / f'ties.{method}.{seed}.jsonl'
      rows = [json.loads(x) for x in file.read_text().splitlines()]
      assert len(rows) == 16
      losses = np.asarray([row['value'] for row in rows])
      np.testing.assert_allclose(found['found'][seed], 1 - losses)
      # Half of the evaluations, then all of them.
      for place, count in enumerate((8, 16)):
        best = 1 - losses[:count].min()
        assert found['validation'][seed][place] == pytest.approx(best)
      unit = np.asarray(rows[int(losses.argmin())]['point'])
      want = [0.02 + 0.98 * unit[0], 3 * unit[1]]
      np.testing.assert_allclose(found['best'][seed], want, rtol=1e-6)


def test_a_grid_has_all_combinations(finished):
  for points in finished.record['results']['ties']['grid']['asked']:
    unique = np.unique(points, axis=0)
    assert len(unique) == 16
    want = [np.linspace(0.02, 1, 4), np.linspace(0, 3, 4)]
    for column, values in zip(unique.T, want):
      np.testing.assert_allclose(np.unique(column), values, atol=1e-6)


def test_the_accuracy_is_that_of_the_merge(finished):
  """The best point of the second seed, merged and tested eagerly."""
  load = lambda name: jax.tree.map(
    lambda x: np.asarray(x)[1],
    checkpoint.load(finished.workdir / 'parts' / f'{name}.safetensors'),
  )
  suite, (base, heads) = suites.load(finished.config), load('base').values()
  stack = jax.tree.map(lambda x, b: x - b, load('experts'), base)
  found = finished.record['results']['ties']['random']
  density, coef = found['best'][1]
  encoder = deltas.apply(base, merge.ties(stack, density=density), coef=coef)
  right = []
  for task, (x, y) in enumerate(zip(*suite.tasks.test, strict=True)):
    head = {k: v[task] for k, v in heads.items()}
    logits = suite.classify({'encoder': encoder, 'head': head}, x)
    right.append((np.asarray(logits).argmax(1) == y).mean())
  assert np.mean(right) == pytest.approx(found['test'][1][-1], abs=3e-3)


def test_vectors_fill_their_places():
  recipe = settings.Recipe(
    'x',
    merge_methods.Method('', (), ({'a': {'fixed': 1}},), (), (), ''),
    (('a', 'w'), ('coef',), ('b', 'r')),
    (2, None, None),
    np.zeros(4),
    np.ones(4),
  )
  arguments, coef = recipe.fill(np.arange(4))
  assert arguments['a']['w'].tolist() == [0, 1]
  assert arguments['a']['fixed'] == 1
  assert (arguments['b']['r'], coef) == (3, 2)
  assert recipe.labels() == ['a.w[0]', 'a.w[1]', 'coef', 'b.r']


def test_claims_need_every_seed():
  curve = lambda *last: {'test': [[0, x] for x in last]}
  results = {
    'one': {'cmaes': curve(0.5, 0.6), 'random': curve(0.4, 0.7)},
    'two': {'cmaes': curve(0.6, 0.7), 'random': curve(0.5, 0.6)},
  }
  found = verdicts.judge(report.gains(results))
  assert found['one: CMA-ES above random search']['holds'] is False
  assert found['two above one by CMA-ES']['holds'] is True
  by = found['two above one by random search']['by']
  np.testing.assert_allclose(by, [0.1, -0.1])


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
