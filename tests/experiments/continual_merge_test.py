"""Merges of experts that arrive one after another, end to end."""

import numpy as np
import pytest

from configs import continual_merge as configs
from experiments import continual_merge
from experiments._continual_merge import arrivals
from tests.experiments import battery

MISTAKES = [
  ({'orders': 0}, 'orders=0: expected 1 or more'),
  ({'streams.mean.stream': 'runing_mean'}, "did you mean 'running_mean'"),
  ({'streams.opcm.arguments': {'alfa': 1}}, "'alfa' .did you mean 'alpha'"),
  ({'coefs': ()}, 'streams, coefs: at least one of each'),
]
ROW = battery.Row(
  continual_merge,
  configs,
  ['base', 'experts', 'mean', 'opcm', 'sum'],
  {'arrivals.png': (400, 700)},
  MISTAKES,
  (arrivals, '_merges', lambda *_: True, 2),
  {'suite8': {'orders': 10}},
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return battery.tiny(tmp_path_factory, ROW)


def test_streams_agree_where_they_must(finished):
  found = {
    name: np.asarray(x['test'])
    for name, x in finished.record['results'].items()
  }
  orders = np.asarray(finished.record['results']['mean']['orders'])
  assert found['mean'].shape == (2, 2, 2, 2)
  # One expert is itself in every stream, and good at its own task.
  np.testing.assert_allclose(
    found['opcm'][:, 0], found['mean'][:, 0], atol=0.01
  )
  for order, test in zip(orders, found['mean'], strict=True):
    assert (test[0][:, order[0]] > 0.5).all()
  # The last mean does not depend on the order.
  np.testing.assert_allclose(found['mean'][0, -1], found['mean'][1, -1],
                             atol=0.01)  # fmt: skip
  rows = {row['stream']: row for row in finished.record['rows']}
  last = found['mean'][:, -1].mean((0, 2))
  assert rows['mean']['seen'][-1][0] == pytest.approx(last.mean())


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
