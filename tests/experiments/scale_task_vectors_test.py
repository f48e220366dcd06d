"""The experiment on coefficients, end to end, with an interruption."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import scale_task_vectors as configs
from experiments import scale_task_vectors
from experiments._scale_task_vectors import (
  added_heads,
  few_label_training,
  few_shot,
  few_shot_runs,
  leaf_order,
  paper_claims,
  predict,
)
from experiments._shared import suites
from tests.experiments import battery
from wsl import data, scale

PARTS = [
  'base',
  'experts',
  'bounds',
  'addition.searched',
  'addition.anisotropic',
  'negation.searched',
  'negation.anisotropic',
  'few_shot.anisotropic',
  'few_shot.lora',
  'test_time.adamerging_leaf',
  'test_time.ufm',
  'partition.x2',
  'partition.lora_x2',
]

MISTAKES = [
  ({'settings': ('addition', 'few_shots')}, "no 'few_shots' .*'few_shot'"),
  ({'settings': ()}, 'settings: none given'),
  ({'addition.methods': ('isotopic',)}, "did you mean 'isotropic'"),
  ({'negation.methods': ('serched',)}, "did you mean 'searched'"),
  ({'few_shot.methods': ('lorra',)}, "few_shot.methods: no 'lorra' .*'lora'"),
  ({'test_time.methods': ('umf',)}, "did you mean 'ufm'"),
  ({'partition.methods': ('prob',)}, "did you mean 'probe'"),
  (
    {'addition.methods': ('tangent_searched',)},
    r"'tangent_searched' needs .*tangent\.epochs=1",
  ),
  ({'negation.control': 'uprigt'}, "control: no 'uprigt' .*'upright'"),
  ({'few_shot.shots': (1, 500)}, r'few_shot\.shots=500: expected 1 \.\. \d+'),
  ({'few_shot.batch_size': 30}, r'few_shot\.batch_size=30: expected 1 \.\. 20'),
  ({'partition.cells': (0,)}, r'partition\.cells=0: expected 1 or more'),
  ({'partition.cells': (1, 'ful')}, "cells: no 'ful' .did you mean 'full'"),
  ({'partition.cells': ()}, r'partition\.cells: none given'),
  ({'negation.every': 9}, r'negation\.every=9: expected 1 \.\. 6'),
  ({'model': 'mpl'}, "model: no 'mpl' .did you mean 'mlp'"),
  ({'data': 'no/such/folder'}, r'no data at no/such/folder.*--config\.data='),
]

FIGURES = dict.fromkeys(
  ['coefficients.png', 'few_shot.png', 'partition.png'], (500, 900)
)
# (module, function, condition, finished parts)
BEFORE = PARTS.index('few_shot.lora')
INTERRUPT = (few_shot, 'run', lambda *args: args[3] == 'lora', BEFORE)
ROW = battery.Row(
  scale_task_vectors, configs, PARTS, FIGURES, MISTAKES, interrupt=INTERRUPT
)


def test_every_method_is_measured_for_all_seeds_and_tasks(finished):
  config, record = finished.config, finished.record
  assert list(record['results']) == list(config.settings)
  assert record['transductive'] == {
    name: name == 'test_time' for name in config.settings
  }
  seeds, tasks = config.seeds, len(config.tasks)
  for setting in ('addition', 'test_time'):
    for name in config[setting].methods:
      found = record['results'][setting][name]
      test = np.asarray(found['test'])
      assert test.shape == (seeds, tasks)
      assert ((test >= 0) & (test <= 1)).all()
  coefs = record['results']['addition']['anisotropic']['coefs']
  assert set(coefs) == set(record['blocks'])
  assert all(np.shape(rows) == (seeds, tasks) for rows in coefs.values())
  searched = record['results']['addition']['searched']
  assert set(np.ravel(searched['coefs']['task'])) <= {
    np.float32(x) for x in config.addition.coefs
  }
  merged = record['results']['test_time']['adamerging_leaf']
  assert merged['trained'] == tasks * len(record['blocks'])
  for name in config.few_shot.methods:
    found = record['results']['few_shot'][name]
    assert np.shape(found['test']) == (2, seeds, tasks)
  negated = record['results']['negation']['anisotropic']
  assert np.shape(negated['test']) == (seeds, tasks - 1, 2)
  assert negated['targets'] == ['inverted', 'striped']


def test_rows_and_claims_follow_from_the_results(finished):
  config, record = finished.config, finished.record
  rows = {
    (r['setting'], r['method'], r.get('shots')): r for r in record['rows']
  }
  test = np.asarray(record['results']['addition']['anisotropic']['test'])
  row = rows['addition', 'anisotropic', None]
  assert row['test'] == pytest.approx(
    [100 * test.mean(), 100 * test.mean(1).std(ddof=1)]
  )
  experts = np.asarray(record['bounds']['experts']['test'])
  assert row['normalised'][0] == pytest.approx(100 * (test / experts).mean())
  assert rows['bounds', 'experts', None]['normalised'][0] == 100
  assert rows['test_time', 'ufm', None]['transductive']
  assert ('few_shot', 'lora', config.few_shot.shots[-1]) in rows
  claims = {one['claim']: one for one in record['claims']}
  one = claims['learned anisotropic > searched, addition']
  searched = np.asarray(record['results']['addition']['searched']['test'])
  difference = 100 * (test - searched).mean(1)
  assert one['difference'] == pytest.approx(difference.tolist())
  assert one['verdict'] in ('holds', 'in the mean only', 'does not hold')


def test_a_control_keeps_its_share_on_validation(finished):
  config, record = finished.config, finished.record
  base = np.asarray(record['bounds']['base']['validation'])[:, 0]
  for found in record['results']['negation'].values():
    held = np.asarray(found['validation'])[..., 1]
    assert (held >= config.negation.floor * base[:, None] - 1e-6).all()


def test_disentanglement_equals_its_definition():
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  encode = jax.tree_util.Partial(lambda p, x: jnp.tanh(x @ p['w']))
  base, deltas = {'w': draw(3, 4)}, {'w': draw(2, 3, 4)}
  heads = {'kernel': draw(2, 4, 5), 'bias': draw(2, 5)}
  x, y = draw(2, 20, 3), np.zeros((2, 20), np.int32)
  model = predict.Composed(encode, base, deltas, heads)
  split = data.Split(jnp.asarray(x), y)
  found = predict.disentanglement(model, split, batch_size=6)

  def predicted(t, w):
    features = np.tanh(x[t] @ w)
    return (features @ heads['kernel'][t] + heads['bias'][t]).argmax(1)

  both = base['w'] + deltas['w'].sum(0)
  for t in range(2):
    alone = predicted(t, base['w'] + deltas['w'][t])
    assert found[t, t] == 0
    assert found[t, 1 - t] == pytest.approx(
      np.mean(alone != predicted(t, both))
    )
  assert found.max() > 0


def test_vectors_are_multiplied_by_their_coefficients():
  base = {'a': jnp.zeros(2), 'b': jnp.zeros(3)}
  models = [{'a': jnp.ones(2), 'b': jnp.full(3, 2.0)}] * 2
  bank = scale.bank(base, models)
  coefs = scale.init(bank, by='leaf')
  coefs.values['a'] = jnp.asarray([2.0, 3.0])
  coefs.values['b'] = jnp.asarray([0.5, -1.0])
  found = predict.scaled(bank, coefs)
  np.testing.assert_allclose(found['a'], [[2, 2], [3, 3]])
  np.testing.assert_allclose(found['b'], [[1, 1, 1], [-2, -2, -2]])


def test_blocks_are_in_the_order_of_the_network():
  suite = suites.load(configs.get_config('tiny'))
  names = leaf_order.order(suite)
  assert names[0] == 'block_0/dense/kernel'
  assert names[-2:] == ['output/kernel', 'output/bias']
  assert len(names) == len(set(names)) == 4
  assert list(leaf_order.matrices(suite)) == [
    'block_0/dense/kernel',
    'output/kernel',
  ]


@pytest.mark.parametrize(
  ('budget', 'size', 'note'),
  [
    (1, 64, 'rank 1 on the last of 2 matrices'),
    (160, 160, 'rank 1 on all of 2 matrices'),
    (300, 320, 'rank 2 on all of 2 matrices'),
  ],
)
def test_factors_have_about_the_given_size(budget, size, note):
  suite = suites.load(configs.get_config('tiny'))
  found = few_label_training.lora(suite, budget)
  assert (found.size, found.note) == (size, note)
  bound = {'base': {'w': jnp.ones((2, 2))}, 'head': None}
  start = found.start(bound, jax.random.key(0))
  assert sum(x.size for x in jax.tree.leaves(start)) == size
  shapes = suites.shapes(suite)['encoder']
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  encoder, _ = found.build({'base': zeros, 'head': None}, start)
  assert all(not x.any() for x in jax.tree.leaves(encoder))


def test_few_shot_images_are_nested_and_unused_by_the_base():
  config = configs.get_config('tiny')
  suite = suites.load(config)
  runs = few_shot_runs.draw(suite, (1, 2))
  count = config.seeds * len(config.tasks)
  assert runs.rows.shape == (2 * count, 20)
  rows = np.asarray(runs.rows)
  assert rows.min() >= config.base.examples
  for r in range(count):
    one, two = set(rows[r]), set(rows[count + r])
    assert len(one) == 10
    assert len(two) == 20
    assert one < two
    labels = suite.tasks.train.y[int(runs.targets[r]), sorted(two)]
    assert (np.bincount(labels) == 2).all()
  assert np.asarray(runs.repeats).tolist() == [2.0] * count + [1.0] * count


@pytest.mark.parametrize(
  ('high', 'verdict'),
  [
    ([0.6, 0.7], 'holds'),
    ([0.4, 0.9], 'in the mean only'),
    ([0.4, 0.5], 'does not hold'),
  ],
)
def test_verdicts(high, verdict):
  one = lambda x: {'test': [[v] for v in x], 'disentanglement': [0.1, 0.2]}
  found = {'isotropic': one([0.5, 0.5]), 'anisotropic': one(high)}
  bounds = {'base': {'test': [[0.5], [0.5]]}}
  (claim,) = paper_claims.judge(bounds, {'addition': found})
  assert claim['verdict'] == verdict
  assert claim['mean'] == pytest.approx(100 * np.mean(high) - 50)


def test_the_suite_of_eight():
  assert len(configs.get_config('suite8').tasks) == 8


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)


def few_labels(repeats):
  """A suite, the models of a run, and its images, each repeated."""
  suite = suites.load(configs.get_config('tiny'))
  params = suite.init(jax.random.key(0))
  y = np.repeat(np.arange(suite.tasks.classes), 2)
  rows = [np.flatnonzero(suite.tasks.train.y[0] == c)[:2] for c in range(10)]
  x = jnp.asarray(suite.tasks.train.x[0, np.concatenate(rows)])
  order = np.tile(np.random.default_rng(0).permutation(20), repeats)
  bound = {
    'base': params['encoder'],
    'head': jax.tree.map(lambda x: x[0], params['heads']),
    'repeats': jnp.float32(repeats),
    'shots': (x[order], jnp.asarray(y[order])),
  }
  return suite, bound, (x, y)


def test_repeated_images_vote_once():
  suite, bound, (x, y) = few_labels(3)
  inner = added_heads.frozen(suite)
  trained = added_heads.tip_adapter(suite, inner)
  start = trained.start(bound, jax.random.key(0))
  test = jnp.asarray(suite.tasks.test.x[0, :7])
  found = few_label_training.logits(trained, suite.encode, bound, start, test)
  head = scale.tip_adapter(suite.encode(bound['base'], x), y, classes=10)
  plain = few_label_training.logits(inner, suite.encode, bound, {}, test)
  wanted = scale.tip_logits(head, suite.encode(bound['base'], test), plain)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
  assert np.abs(found - plain).max() > 1


def test_lp_separates_its_images_and_starts_at_the_coefficients():
  suite, bound, (x, y) = few_labels(2)
  trained = added_heads.linear_probe(suite, added_heads.frozen(suite))
  start = trained.start(bound, jax.random.key(0))
  logits = lambda params: few_label_training.logits(
    trained, suite.encode, bound, params, x
  )
  head = bound['head']
  plain = suite.classify({'encoder': bound['base'], 'head': head}, x)
  np.testing.assert_allclose(logits(start), plain, rtol=1e-5)
  found = jax.jit(lambda p: trained.finish(suite.encode, bound, p))(start)
  assert np.mean(np.argmax(logits(found), 1) == y) > 0.95
  assert np.mean(np.argmax(plain, 1) == y) < 0.5
