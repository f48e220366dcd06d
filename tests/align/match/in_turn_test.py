"""Many models over all gauges, each in turn matched to the sum of others."""

import jax
import numpy as np
import pytest

from tests.align.gauged import draw, net, permuted, SYMMETRY, X
from wsl import align

GIVEN = {'symmetry': SYMMETRY, 'key': jax.random.key(0)}
ALL = GIVEN | {'gauges': align.GAUGES}
MODELS = [draw(seed) for seed in range(4)]


def test_planted_elements_of_four_copies_are_undone():
  first, sweeps = MODELS[0], []
  keys = jax.random.split(jax.random.key(1), 3)
  copies = [permuted(first, align.random(SYMMETRY, k)) for k in keys]
  found = align.match_many([first, *copies], **ALL, progress=sweeps.append)
  for g in found:
    assert set(g) == {*align.identity(SYMMETRY), *SYMMETRY.action}
  for copy, g in zip(copies, found[1:]):
    restored = permuted(copy, g)
    for n, x in first.items():
      np.testing.assert_allclose(restored[n], x, rtol=0, atol=1e-10)
  assert len(sweeps) <= 5
  for n, x in permuted(first, found[0]).items():
    np.testing.assert_array_equal(x, first[n])


def in_balance(found):
  """Returns the agreement in the balanced frame of the first model."""
  frame = align.balance(MODELS[0], symmetry=SYMMETRY).gauge
  frame = align.identity(SYMMETRY) | frame
  moved = [permuted(m, g) for m, g in zip(MODELS, found)]
  return align.agreement([permuted(m, frame) for m in moved])


def test_the_agreement_of_unrelated_models_never_falls():
  given = ALL | {'max_sweeps': 5}
  star = [align.weight_matching(MODELS[0], m, **given) for m in MODELS]
  sweeps = []
  found = align.match_many(
    MODELS, **given, initial=star, progress=sweeps.append
  )
  start = sweeps[0].objective - sweeps[0].gained
  np.testing.assert_allclose(start, in_balance(star), rtol=1e-9)
  assert all(s.gained >= 0 for s in sweeps)
  np.testing.assert_allclose(sweeps[-1].objective, in_balance(found), 1e-9)
  assert sweeps[-1].objective > 1.01 * start
  for m, g in zip(MODELS, found):
    moved = net(permuted(m, g), X, np)
    np.testing.assert_allclose(moved, net(m, X, np), rtol=0, atol=1e-9)


def test_more_starts_are_never_worse():
  given = GIVEN | {'gauges': ('permutation', 'sign', 'rotation')}
  reached = []
  for starts in (1, 3):
    sweeps = []
    align.match_many(
      MODELS, **given, starts=starts, max_sweeps=1, progress=sweeps.append
    )
    reached.append(max(s.objective for s in sweeps))
  assert reached[1] >= reached[0]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'update': 'at once'}, r"update is 'at once'.*='in turn' only"),
    ({'initial': [{}] * 4}, "initial lacks the group 'a:1'"),
    ({'initial': [align.identity(SYMMETRY)]}, 'initial has 1 elements for 4'),
    ({'gauges': ('turn',)}, "gauges has 'turn'"),
  ],
)
def test_arguments_are_checked(change, message):
  with pytest.raises(ValueError, match=f'^match_many: {message}'):
    align.match_many(MODELS, **ALL | change)
