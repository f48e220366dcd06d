"""Paths through the blocks: compiled runs, and the tree search of CoLa."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch, surgery

DEPTH = 4


def same(p, h):
  return h


def block(p, h):
  return h + jnp.tanh(h @ p)


def network():
  rng = np.random.default_rng(0)
  blocks = jnp.asarray(rng.normal(size=(DEPTH, 3, 3)))
  return stitch.Segmented(
    {'embed': {}, 'blocks': blocks, 'head': {}}, same, block, same
  )


X = np.random.default_rng(1).normal(size=(5, 3))
PATHS = np.asarray(
  [[0, 1, 2, 3, -1], [0, 2, 2, 3, -1], [3, 1, -1, 0, 0], [-1, -1, -1, -1, 2]]
)


def by_hand(path):
  h = X
  for i in path[path >= 0]:
    h = h + np.tanh(h @ np.asarray(network().params['blocks'][i]))
  return h


def test_a_path_runs_the_blocks_in_its_order():
  run = jax.jit(lambda *args: surgery.follow(*args))  # no program yet
  for path in PATHS:
    found = run(network(), path, X)
    np.testing.assert_allclose(found, by_hand(path), rtol=1e-12)
    program = surgery.path_program(DEPTH, path)
    applied = surgery.apply_program(network(), program)
    wanted = stitch.apply(applied, X)
    np.testing.assert_allclose(found, wanted, rtol=1e-13)
  assert run._cache_size() == 1


def test_each_example_takes_its_own_path():
  each = jax.vmap(surgery.follow, (None, 0, 0))
  found = each(network(), PATHS, X[:4, None])
  for i, path in enumerate(PATHS):
    np.testing.assert_allclose(found[i, 0], by_hand(path)[i], rtol=1e-12)


def search(evaluate, simulations, samples=1, depth=DEPTH, **rest):
  return surgery.cola(
    evaluate,
    depth=depth,
    samples=samples,
    simulations=simulations,
    key=jax.random.key(3),
    **rest,
  )


def without_two(paths):
  """Correct where block 2 is not run."""
  return 1.0 - np.any(paths == 2, axis=1)


def test_no_simulation_is_the_network():
  found = search(without_two, 0, samples=3)
  start = tuple(range(DEPTH))
  assert found.base.tolist() == [0, 0, 0]
  assert found.fronts == (((start, 0.0),),) * 3
  assert found.found == found.fronts


def test_a_search_is_reproducible_and_samples_are_independent():
  def evaluate(paths):
    lengths = np.sum(paths >= 0, axis=1)
    return (lengths + np.arange(len(paths))) % 3 / 2

  both = search(evaluate, 20, samples=2)
  again = search(evaluate, 20, samples=2)
  assert both.found == again.found
  alone = search(evaluate, 20)
  assert alone.found[0] == both.found[0]
  assert both.found[1] != both.found[0]


def test_every_simulation_is_a_new_path_within_the_limits():
  found = search(without_two, 60, longest=6).found[0]
  paths = [path for path, _ in found]
  assert len(paths) == 61
  assert len(set(paths)) == 61
  assert max(map(len, paths)) <= 6
  for path, value in found:
    assert value == (2 not in path)


def test_small_spaces_are_searched_completely():
  found = search(lambda p: np.zeros(len(p)), 99, depth=3, copies=0).found[0]
  subsets = [c for n in (1, 2, 3) for c in itertools.combinations(range(3), n)]
  assert sorted(path for path, _ in found) == sorted(subsets)


def test_the_front_is_the_shortest_path_of_each_value():
  found = search(without_two, 60)
  front = found.fronts[0]
  best = {v: min(len(p) for p, w in found.found[0] if w >= v) for v in (0, 1)}
  assert [x.value for x in front] == sorted({x.value for x in front})
  assert len(front[-1].path) == best[1]
  assert len(front[0].path) == best[0]


def test_the_bound_finds_rare_paths_before_random_edits_do():
  # Correct without the blocks 6 .. 11, by more for each: 1 path in thousands.
  evaluate = lambda paths: np.asarray(
    [1 - len({*p} & {*range(6, 12)}) / 6 for p in paths.tolist()]
  )
  lengths = {}
  for explore in (0.3, 1e6):  # the second visits all children equally
    one = search(evaluate, 150, samples=4, depth=12, explore=explore, span=2)
    lengths[explore] = np.mean([front[-1].value for front in one.fronts])
  assert lengths[0.3] > lengths[1e6] + 0.05


ERRORS = {
  'depth=0': {'depth': 0},
  'samples=0': {'samples': 0},
  'simulations=-1': {'simulations': -1},
  'span=0': {'span': 0},
  'longest=3': {'longest': 3},
  'penalty=-1': {'penalty': -1},
}


@pytest.mark.parametrize('message', ERRORS)
def test_arguments_out_of_range_are_named(message):
  arguments = {'simulations': 1, **ERRORS[message]}
  with pytest.raises(ValueError, match=f'cola: {message}'):
    search(without_two, **arguments)


@pytest.mark.parametrize('values', [np.zeros(2), np.full(1, np.nan)])
def test_values_of_another_shape_or_not_finite_are_refused(values):
  with pytest.raises(ValueError, match='cola: evaluate returned'):
    search(lambda paths: values, 1)


def test_paths_are_checked():
  with pytest.raises(ValueError, match='follow: path is float64'):
    surgery.follow(network(), np.ones(2), X)
  blocks = tuple(network().params['blocks'])
  params = {'embed': {}, 'blocks': blocks, 'head': {}}
  listed = stitch.Segmented(params, same, (block,) * DEPTH, same)
  with pytest.raises(ValueError, match='of the network are not stacked'):
    surgery.follow(listed, np.arange(4), X)
