"""CRaSh: clusters of adjacent blocks, kept blocks, and shared copies."""

import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch, surgery


def agglomerate(similarity, count):
  """The definition: unite the two clusters of the most similar boundary."""
  clusters = [[i] for i in range(len(similarity) + 1)]
  while len(clusters) > count:
    boundary = [similarity[c[-1]] for c in clusters[:-1]]
    i = int(np.argmax(boundary))
    clusters[i : i + 2] = [clusters[i] + clusters[i + 1]]
  return tuple((c[0], c[-1] + 1) for c in clusters)


def test_clusters_are_those_of_the_agglomeration():
  rng = np.random.default_rng(0)
  for depth in (1, 2, 7):
    for count in range(1, depth + 1):
      values = rng.integers(0, 4, depth - 1) / 4  # with ties
      found = surgery.block_clusters(values, clusters=count)
      assert found == agglomerate(values, count)


def test_as_many_clusters_as_blocks_are_the_identity():
  clusters = surgery.block_clusters([0.2, 0.9, 0.4], clusters=4)
  for mode in ('remove', 'share'):
    program = surgery.crash(clusters, mode=mode)
    assert program == surgery.program_of(4, range(4))


def test_removed_blocks_are_replaced_by_the_nearest():
  clusters = ((0, 1), (1, 5), (5, 6), (6, 8))  # keeps 0, 3, 5, 7
  assert [x.sources[0] for x in surgery.crash(clusters).layers] == [0, 3, 5, 7]
  shared = surgery.crash(clusters, mode='share').layers
  # 4 and 6 are at one distance of two kept blocks: the right one.
  assert [x.sources[0] for x in shared] == [0, 0, 3, 3, 5, 5, 7, 7]
  assert [x.tied for x in shared] == [0, 0, 3, 3, 5, 5, 7, 7]


def turn(p, h):
  return h @ p


def same(p, h):
  return h


def test_similarities_are_the_cka_of_adjacent_outputs():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
  rotation = jnp.asarray(np.linalg.qr(rng.normal(size=(4, 4)))[0]) * 3
  blocks = jnp.stack([draw(4, 4), rotation, draw(4, 4) / 7])
  params = {'embed': {}, 'blocks': blocks, 'head': {}}
  model = stitch.Segmented(params, same, turn, same)
  x = draw(10, 4)
  found = surgery.block_similarities(model, [x[:5], x[5:]])
  h, values = np.asarray(x), []
  for block in np.asarray(blocks):
    h = h @ block
    values.append(h - h.mean(0))

  def cka(x, y):
    hsic = lambda a, b: np.sum((a @ a.T) * (b @ b.T))
    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))

  wanted = [cka(*values[i : i + 2]) for i in range(2)]
  np.testing.assert_allclose(found, wanted, rtol=1e-10)
  np.testing.assert_allclose(found[0], 1, rtol=1e-10)  # a scaled rotation
  assert found[1] < 0.99


def test_sequences_are_pooled_to_a_row_of_each_example():
  rng = np.random.default_rng(1)
  blocks = jnp.asarray(rng.normal(size=(2, 4, 4)))
  params = {'embed': {}, 'blocks': blocks, 'head': {}}
  model = stitch.Segmented(params, same, turn, same)
  x = jnp.asarray(rng.normal(size=(9, 5, 4)))
  pooled = {'mean': x.mean(1), 'last': x[:, -1], 'none': x.reshape(-1, 4)}
  for pool, rows in pooled.items():  # the blocks are linear
    found = surgery.block_similarities(model, [x], pool=pool)
    wanted = surgery.block_similarities(model, [rows])
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
  with pytest.raises(ValueError, match="did you mean 'mean'"):
    surgery.block_similarities(model, [x], pool='men')
