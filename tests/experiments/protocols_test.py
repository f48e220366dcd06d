"""The published protocols: their statistics, and the experiment."""

import itertools
import json

import jax
import numpy as np
import pytest

from configs import protocols as configs
from experiments import protocols as experiment
from experiments._protocols import runs, settings
from experiments._shared import protocols
from tests.experiments import battery
from wsl import checkpoint

GROUP = 'in_the_wild.groups.broad'
MISTAKES = [
  ({'sizes': ('smal',)}, "sizes: no 'smal' .did you mean 'small'"),
  ({'experts_of': 3}, r'experts_of=3: expected 2 \.\. 2'),
  ({f'{GROUP}.tasks': 4}, r'groups\.broad\.tasks=4: expected 1 \.\. 3'),
  ({f'{GROUP}.noise': 1.5}, r'groups\.broad\.noise=1\.5: expected 0 \.\. 1'),
  ({'at_scale.sizes': (2, 3)}, r'at_scale\.sizes=\(2, 3\): .* 1 \.\. 2'),
  ({'at_scale.draws': 0}, r'at_scale\.draws=0: expected 1 or more'),
  ({'at_scale.methods': ('tise',)}, r"no 'tise' in wsl\.merge.*'ties'"),
  (
    {'in_the_wild.methods': ('fisher',)},
    "in_the_wild.methods: 'fisher' reads images",
  ),
  ({'merge_bench.methods': ('dare',)}, "'dare' edits task vectors.*'\\+sum'"),
]
ROW = battery.Row(
  experiment,
  configs,
  [
    *('small.base', 'small.experts', 'small.broad'),
    *('small.bounds', 'small.merge_bench.sum', 'small.merge_bench.ties'),
    *('small.at_scale.sum', 'small.in_the_wild.sum'),
    'small.in_the_wild.mean',
  ],
  dict.fromkeys(
    ['merge_bench.png', 'at_scale.png', 'in_the_wild.png'], (400, 900)
  ),
  MISTAKES,
  (runs, '_of_size', lambda *args: args[0].name == 'ties', 5),
)
MEMBERS = np.asarray(list(itertools.product((False, True), repeat=3)))[1:]
RANDOM = np.random.default_rng(0)
KEY = jax.random.key(3)


def test_rows_are_the_statistics_of_the_tables(finished):
  """Recomputed from the tables in the parts, by loops over seeds."""
  load = lambda name: json.loads(
    (finished.workdir / 'parts' / f'small.{name}.json').read_text()
  )['values']
  bounds = load('bounds')
  rows = {(r['protocol'], r['method']): r for r in finished.record['rows']}
  assert len(rows) == 5
  test = load('merge_bench.ties')['test']
  for seed in range(2):
    experts, base = bounds['experts'][seed], bounds['base'][seed]
    want = np.mean([test[seed][0][t] / experts[t][t] for t in range(2)])
    found = rows['merge_bench', 'ties']
    assert found['normalised'][seed] == pytest.approx(want)
    assert found['forgetting'][seed] == pytest.approx(
      1 - test[seed][0][2] / base[2]
    )
    wild = load('in_the_wild.mean')['test'][seed]
    over = np.mean(wild, 1) - np.mean(base)
    found = rows['in_the_wild', 'mean']
    assert found['over_base'][seed] == [pytest.approx(over.mean())]
    assert found['beats_base'][seed] == [np.mean(over > 0)]
  scale = rows['at_scale', 'sum']
  assert scale['counts'] == [1, 2]
  assert np.shape(scale['held_in']) == np.shape(scale['held_out']) == (2, 2)
  # Both merges of all experts chose one coefficient from the same images.
  whole = rows['merge_bench', 'sum']
  assert whole['choices'] == scale['choices'][1:]
  assert whole['normalised'] == [x[1] for x in scale['held_in']]


def test_the_mean_of_two_experts_is_measured(finished):
  """The first merge of the mean, from the trained encoders."""
  load = lambda name: jax.tree.map(
    np.asarray,
    checkpoint.load(finished.workdir / 'parts' / f'small.{name}.safetensors'),
  )
  setting = settings.load(finished.config)
  suite, start = setting.suites['small'], load('base')
  wild = [load(name) for name in setting.tasks]
  wild = jax.tree.map(lambda *x: np.concatenate(x, 1), *wild)
  members = setting.members['in_the_wild'][0]
  seed, right = 1, []
  encoder = jax.tree.map(lambda x: x[seed, members].mean(0), wild)
  for task, (x, y) in enumerate(zip(*suite.tasks.test, strict=True)):
    head = {k: v[seed, task] for k, v in start['heads'].items()}
    logits = suite.classify({'encoder': encoder, 'head': head}, x)
    right.append((np.asarray(logits).argmax(1) == y).mean())
  part = finished.workdir / 'parts' / 'small.in_the_wild.mean.json'
  found = json.loads(part.read_text())['values']
  assert found['choices'] == [{'arguments': {}, 'coef': 1.0}]
  np.testing.assert_allclose(found['test'][seed][0], right, atol=3e-3)


def test_unlike_experts_have_tasks_and_labels_of_their_group(finished):
  setting = settings.load(finished.config)
  assert {k: x.shape for k, x in setting.tasks.items()} == {'broad': (3, 2)}
  assert all((np.diff(x) > 0).all() for x in setting.tasks.values())
  assert setting.members['in_the_wild'].shape == (2, 3)
  bounds = json.loads(
    (finished.workdir / 'parts' / 'small.bounds.json').read_text()
  )['values']
  alone = np.asarray(bounds['alone'])
  assert alone.shape == (2, 3, 3)
  # Experts with few wrong labels are above the base on their own tasks.
  for expert, tasks in enumerate(setting.tasks['broad']):
    gain = alone[:, expert] - np.asarray(bounds['base'])
    assert gain[:, tasks].mean() > 0


def test_merge_bench_equals_its_definition_in_every_row():
  merged, experts = RANDOM.uniform(0.1, 1, (2, 3, 4)), np.arange(1.0, 5)
  general, base = RANDOM.uniform(0.1, 1, (2, 3, 2)), np.asarray([0.5, 0.8])
  seconds = RANDOM.uniform(0, 9, (2, 3, 5))
  found = protocols.merge_bench(
    merged,
    experts,
    general=general,
    base=base,
    merge_seconds=seconds,
    validation_seconds=seconds,
  )
  for at in np.ndindex(2, 3):
    normalised = sum(s / e for s, e in zip(merged[at], experts)) / 4
    kept = sum(s / b for s, b in zip(general[at], base)) / 2
    assert found.normalised[at] == pytest.approx(normalised)
    assert found.forgetting[at] == pytest.approx(1 - kept)
    assert found.seconds[at] == pytest.approx(2 * sum(seconds[at]))
  # Every expert on its own task recovers all; a loss has the inverse ratio.
  assert protocols.merge_bench(experts, experts).normalised == 1
  losses = protocols.merge_bench([2.0], [1.0], lower_is_better=True)
  assert losses.normalised == 0.5
  assert np.isnan(losses.forgetting)
  assert losses.seconds == 0


def test_at_scale_averages_over_members_then_over_merges():
  held_in, experts = RANDOM.uniform(0.1, 1, (2, 7, 3)), [0.5, 0.7, 0.9]
  held_out, base = RANDOM.uniform(0.1, 1, (2, 7, 4)), RANDOM.uniform(1, 2, 4)
  found = protocols.at_scale(
    MEMBERS, held_in, experts, held_out=held_out, base=base
  )
  assert found.sizes.tolist() == [1, 2, 3]
  for model, (place, size) in itertools.product((0, 1), enumerate((1, 2, 3))):
    inside, outside = [], []
    for d, row in enumerate(MEMBERS):
      if sum(row) == size:
        own = [held_in[model, d, t] / experts[t] for t in range(3) if row[t]]
        inside.append(sum(own) / size)
        outside.append(np.mean(held_out[model, d] / base))
    assert found.held_in[model, place] == pytest.approx(np.mean(inside))
    assert found.held_out[model, place] == pytest.approx(np.mean(outside))
  # Scores of tasks whose expert is not a member are not read.
  other = np.where(MEMBERS, held_in, 77.0)
  np.testing.assert_array_equal(
    protocols.at_scale(MEMBERS, other, experts).held_in, found.held_in
  )


@pytest.mark.parametrize('lower', [False, True])
def test_in_the_wild_counts_and_averages_merges_of_a_size(lower):
  merged, alone = RANDOM.uniform(size=(2, 7, 4)), RANDOM.uniform(size=(3, 4))
  base = RANDOM.uniform(size=4)
  sign = -1 if lower else 1
  found = protocols.in_the_wild(
    MEMBERS, sign * merged, sign * alone, sign * base, lower_is_better=lower
  )
  for model, (place, size) in itertools.product((0, 1), enumerate((1, 2, 3))):
    over_base, over_best = [], []
    for d, row in enumerate(MEMBERS):
      if sum(row) == size:
        score = sum(merged[model, d]) / 4
        over_base.append(score - sum(base) / 4)
        best = max(sum(alone[p]) / 4 for p in range(3) if row[p])
        over_best.append(score - best)
    at = (model, place)
    assert found.over_base[at] == pytest.approx(np.mean(over_base))
    assert found.over_best[at] == pytest.approx(np.mean(over_best))
    assert found.beats_base[at] == np.mean([x > 0 for x in over_base])
    assert found.beats_best[at] == np.mean([x > 0 for x in over_best])


def test_a_single_member_and_a_tie_are_no_gain():
  alone = RANDOM.uniform(size=(3, 4))
  found = protocols.in_the_wild(np.eye(3), alone, alone, alone[0])
  assert found.over_best.tolist() == [0]
  assert found.beats_best.tolist() == [0]
  same = protocols.in_the_wild(np.eye(3)[:1], alone[:1], alone, alone[0])
  assert same.beats_base.tolist() == [0]


def test_subsets_are_distinct_and_a_function_of_the_key():
  draw = lambda key: protocols.draw_members(
    6, sizes=(2, 3, 6), draws=12, key=key
  )
  found = draw(KEY)
  assert found.sum(1).tolist() == [2] * 12 + [3] * 12 + [6]
  assert len(np.unique(found, axis=0)) == 25
  np.testing.assert_array_equal(found, draw(KEY))
  assert (found != draw(jax.random.key(4))).any()
  all_pairs = protocols.draw_members(4, sizes=(2,), draws=9, key=KEY)
  assert len(np.unique(all_pairs, axis=0)) == 6


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (
      lambda: protocols.draw_members(3, sizes=(4,), draws=1, key=KEY),
      r'sizes=\(4,\): expected sizes of 1 \.\. 3',
    ),
    (
      lambda: protocols.draw_members(3, sizes=(2,), draws=0, key=KEY),
      'draws=0: expected 1 or more',
    ),
    (
      lambda: protocols.merge_bench([1.0], [0.0]),
      'merge_bench: experts must be > 0',
    ),
    (
      lambda: protocols.merge_bench([0.0], [1.0], lower_is_better=True),
      'merge_bench: losses of merges must be > 0',
    ),
    (
      lambda: protocols.merge_bench([1.0], [1.0], general=[1.0]),
      'merge_bench: give general and base, or neither',
    ),
    (
      lambda: protocols.at_scale(np.eye(2), np.ones((3, 2)), [1, 1]),
      r'at_scale: held_in has shape \(3, 2\): give \[\.\.\., 2, tasks\]',
    ),
    (
      lambda: protocols.at_scale(np.eye(2), np.ones((2, 3)), [1, 1, 1]),
      'at_scale: held_in has 3 tasks for 2 experts',
    ),
    (
      lambda: protocols.at_scale(np.eye(2), np.eye(2), [1, 1], base=[1]),
      'at_scale: give held_out and base, or neither',
    ),
    (
      lambda: protocols.in_the_wild(np.zeros((1, 2)), [[1]], np.eye(2), [1]),
      r'in_the_wild: members has shape \(1, 2\): .*one expert or more',
    ),
    (
      lambda: protocols.in_the_wild(np.eye(2), np.eye(2), np.eye(3), [1]),
      r'in_the_wild: alone has shape \(3,\) without tasks for 2 experts',
    ),
  ],
)
def test_bad_tables_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
