"""Experts over a mesh axis of their own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import mesh, models, surgery

E, WIDTH, HIDDEN = 8, 4, 6
RULES = [('experts/', jax.P('expert')), ('.*', jax.P())]
RNG = np.random.default_rng(0)
LAYER = {
  'experts': {
    'down': {'kernel': RNG.normal(size=(E, HIDDEN, WIDTH))},
    'gate': {'kernel': RNG.normal(size=(E, WIDTH, HIDDEN))},
    'up': {'kernel': RNG.normal(size=(E, WIDTH, HIDDEN))},
  },
  'router': {'kernel': RNG.normal(size=(WIDTH, E))},
}
X = jnp.asarray(RNG.normal(size=(16, WIDTH)))

pytestmark = pytest.mark.needs_devices(8)


@pytest.mark.parametrize('capacity', [None, 1.0])
def test_sharded_experts_compute_what_whole_ones_do(capacity):
  module = models.MoE(models.SwiGLU, HIDDEN, E, top_k=2, capacity=capacity)
  fn = jax.jit(lambda p, x: module.apply({'params': p}, x))
  sharded = mesh.shard(LAYER, RULES, mesh.make('expert:8'))
  up = sharded['experts']['up']['kernel']
  assert up.sharding.shard_shape(up.shape) == (1, WIDTH, HIDDEN)
  np.testing.assert_allclose(
    fn(sharded, X), fn(LAYER, X), rtol=1e-12, atol=1e-13
  )
  # No weight of an expert leaves its device.
  text = fn.lower(sharded, X).compile().as_text()
  gathered = re.findall(r'= \w+\[([\d,]*)\]\S* all-gather', text)
  weights = {f'{E},{WIDTH},{HIDDEN}', f'{E},{HIDDEN},{WIDTH}'}
  assert not weights & set(gathered)


def test_sharded_experts_are_merged_and_split():
  sharded = mesh.shard(LAYER, RULES, mesh.make('expert:8'))
  groups = surgery.ExpertGroups(np.repeat(np.arange(2), 4), np.asarray([0, 4]))
  usage = RNG.dirichlet(np.ones(E))
  merge = lambda p: surgery.merge_experts(p['experts'], groups, usage=usage)
  for x, y in zip(
    jax.tree.leaves(merge(sharded)), jax.tree.leaves(merge(LAYER))
  ):
    np.testing.assert_allclose(x, y, rtol=1e-12)
