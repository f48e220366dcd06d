"""Growth, cuts and paths of a small language model, end to end."""

import numpy as np
import pytest

from configs import depth_surgery as configs
from experiments import depth_surgery
from experiments._depth_surgery import claims, cuts
from tests.experiments import battery

MISTAKES = [
  ({'domains': ('manual', 'licenses')}, "no 'licenses' .did you mean 'licence"),
  ({'model': {'widht': 16}}, "'widht' .did you mean 'width'"),
  ({'budgets': (20, 10)}, 'budgets=.* expected rising numbers'),
  ({'growth': 3}, 'depth=4: growth=3 and 2 have to divide it'),
  ({'cuts.methods': ('crush',)}, "no 'crush' .did you mean 'crash'"),
  ({'cuts.keep': 4}, r'cuts\.keep=4: expected 2 \.\. 3'),
  ({'paths.longest': 3}, r'paths\.longest=3: expected 4 or more'),
]
ROW = battery.Row(
  depth_surgery,
  configs,
  ['scratch.20', 'growth.20', 'cuts', 'paths'],
  {'growth.png': (500, 900), 'cuts.png': (300, 1000), 'paths.png': (500, 900)},
  MISTAKES,
  (cuts, '_gates', lambda *_: True, 2),
  {'texts': {'domains': ()}},
  default='python',
)  # fmt: skip


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return battery.tiny(tmp_path_factory, ROW)


def test_ways_of_growth_have_equal_compute(finished):
  one = finished.record['results']['growth']['20']
  scratch, grown = one['compute']
  assert abs(grown / scratch - 1) < 0.2
  few, rest = one['steps']
  assert (few, rest) == (10, 10)


def test_identity_blocks_preserve_the_loss_and_copies_do_not(finished):
  one = finished.record['results']['growth']['20']
  shallow = np.asarray(one['shallow'])
  programs = one['programs']
  np.testing.assert_allclose(programs['identity']['grown'], shallow, rtol=1e-5)
  assert (np.abs(programs['stack']['grown'] - shallow) > 1e-4).all()
  for found in programs.values():
    assert (np.asarray(found['bits']) < 7.5).all()


def test_cuts_keep_as_many_blocks_as_asked(finished):
  found = finished.record['results']['cuts']
  for name in ('crash', 'fold'):
    assert [len(x) for x in found['kept'][name]] == [2, 2]
    assert (np.asarray(found[name]['trained']) < found[name]['cut']).all()
  assert np.asarray(found['gates']).shape == (2, 4)
  assert np.asarray(found['similarities']).shape == (2, 3)


def test_searches_find_more_with_more_simulations(finished):
  depth = finished.config.depth
  for seeds in finished.record['results']['paths'].values():
    for one in seeds:
      after = np.asarray(one['after'])
      assert len(after) == 7
      assert (np.diff(after) >= 0).all()
      assert after[0] == np.mean(one['base'])
      assert after[-1] == np.mean(one['found'])
      lengths = np.asarray(one['shortest'])
      assert ((lengths > 0) == one['found']).all()
      assert (lengths[np.asarray(one['base']) == 1] <= depth).all()


def test_speedups_are_interpolated_in_the_logarithm_of_compute():
  one = lambda compute, scratch, grown: {
    'compute': [compute, compute],
    'scratch': scratch,
    'programs': {'stack': {'bits': grown}},
  }
  found = {
    '80': one(1.0, [5.0, 5.0], [4.0, 3.0]),
    '160': one(4.0, [3.0, 3.5], [2.0, 2.0]),
  }
  # Seed 0 reaches 3.0 after half the way from 1 to 4; seed 1 before the first.
  first, second = claims.speedups(found)['stack']
  assert np.isclose(first, 4 / 2 - 1)
  assert second is None


def test_shares_of_windows():
  one = {
    'base': [1.0, 1.0, 0.0, 0.0],
    'found': [True, True, True, False],
    'shortest': [4, 3, 5, 0],
  }
  assert claims.shares(4, one) == {
    'base': 0.5,
    'found': 0.75,
    'shortened': 0.5,
    'corrected': 0.5,
  }


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
