"""Deep Incubation: modules, meta models, inserted modules, losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.stitch import training
from tests.stitch.assembly import toys
from wsl import stitch, tree

X, Y = toys.examples(8)
BATCH = jnp.asarray(X), jnp.asarray(Y)


def double(params, h):
  return 2 * toys.block(params, h)


def loose(seed=0, depth=4):
  """The toy network with a tuple of blocks, of two functions."""
  model = toys.network(seed, depth)
  rows = model.params['blocks']
  blocks = tuple(jax.tree.map(lambda x, i=i: x[i], rows) for i in range(depth))
  fns = tuple((toys.block, double)[i % 2] for i in range(depth))
  return stitch.Segmented(
    {**model.params, 'blocks': blocks}, toys.dense, fns, toys.dense
  )


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('make', [toys.network, loose])
@pytest.mark.parametrize('count', [1, 2, 3, 4])
def test_modules_are_a_disjoint_cover_of_the_network(make, count):
  model = make()
  modules = stitch.split(model, count=count)
  assert len(modules) == count
  # Every entry of the network is in exactly one module.
  number = iter(range(10**6))
  labelled = jax.tree.map(
    lambda x: np.array([next(number) for _ in range(x.size)]).reshape(x.shape),
    model,
  )
  parts = [
    leaf.ravel()
    for part in stitch.split(labelled, count=count)
    for leaf in jax.tree.leaves(part)
  ]
  found = np.concatenate(parts)
  assert sorted(found) == list(range(next(number)))
  sizes = [sum(tree.sizes(module).values()) for module in modules]
  assert sum(sizes) == sum(tree.sizes(model).values())
  whole = stitch.assemble(modules)
  equal(whole.params, model.params)
  np.testing.assert_array_equal(stitch.apply(whole, X), stitch.apply(model, X))


def test_uneven_modules_differ_by_one_block():
  sizes = [part.depth for part in stitch.split(toys.network(depth=7), count=3)]
  assert sizes == [3, 2, 2]


@pytest.mark.parametrize('make', [toys.network, loose])
@pytest.mark.parametrize('slot', range(2))
def test_inserting_the_meta_models_own_block_changes_nothing(make, slot):
  meta = stitch.meta_model(make(), count=2)
  assert meta.depth == 2
  own = stitch.split(meta, count=2)[slot]
  got = stitch.insert_module(meta, own, slot=slot)
  equal(got.params, meta.params)
  np.testing.assert_array_equal(stitch.apply(got, X), stitch.apply(meta, X))


def test_the_meta_model_has_the_first_block_of_each_module():
  model = toys.network(depth=7)
  rows = np.array([0, 3, 5])
  want = jax.tree.map(lambda x: x[rows], model.params['blocks'])
  equal(stitch.meta_model(model, count=3).params['blocks'], want)


@pytest.mark.parametrize('slot', range(2))
def test_an_inserted_module_runs_between_meta_blocks(slot):
  meta = stitch.meta_model(toys.network(10), count=2)
  module = stitch.split(toys.network(20), count=2)[slot]
  h = meta.embed((meta, module)[slot == 0].params['embed'], X)
  for k in range(2):
    owner = module if k == slot else meta
    rows = range(2) if k == slot else [k]
    for i in rows:
      row = jax.tree.map(lambda x, i=i: x[i], owner.params['blocks'])
      h = toys.block(row, h)
  want = toys.dense((meta, module)[slot == 1].params['head'], h)
  got = stitch.apply(stitch.insert_module(meta, module, slot=slot), X)
  np.testing.assert_allclose(got, want, rtol=1e-12)


def stacked_modules(seed=20):
  return stitch.stack_modules(stitch.split(toys.network(seed), count=2))


def test_one_program_inserts_modules_in_all_slots():
  meta = stitch.meta_model(toys.network(10), count=2)
  traces = []

  @jax.jit
  def outputs(meta, modules):
    def one(slot, module):
      traces.append(slot)
      return stitch.apply(stitch.insert_module(meta, module, slot=slot), X)

    return jax.vmap(one)(jnp.arange(2), modules)

  got = outputs(meta, stacked_modules())
  for slot, module in enumerate(stitch.split(toys.network(20), count=2)):
    want = stitch.apply(stitch.insert_module(meta, module, slot=slot), X)
    np.testing.assert_allclose(got[slot], want, rtol=1e-12)
  assert len(traces) == 1


def test_one_program_has_the_gradients_of_separate_jobs():
  meta = stitch.meta_model(toys.network(10), count=2)

  def gradient(slot, module):
    loss = stitch.incubation(meta, slot=slot, criterion=toys.criterion)
    return jax.grad(loss)(module, BATCH, toys.KEY)

  mapped = jax.jit(jax.vmap(gradient))
  together = mapped(jnp.arange(2), stacked_modules())
  for slot, module in enumerate(stitch.split(toys.network(20), count=2)):
    got = stitch.unstack_modules(together)[slot].params
    want = jax.jit(functools.partial(gradient, slot))(module).params
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), got, want
    )
  # Copies of an embedding or head that is not owned have zero gradients.
  norms = jax.tree.map(
    lambda x: jnp.abs(x).sum(tuple(range(1, x.ndim))), together.params
  )
  assert all(x[0] > 0 and x[1] == 0 for x in jax.tree.leaves(norms['embed']))
  assert all(x[0] == 0 and x[1] > 0 for x in jax.tree.leaves(norms['head']))


@pytest.mark.parametrize('slot', range(2))
def test_the_loss_is_that_of_the_network_with_the_module(slot):
  meta = stitch.meta_model(loose(10), count=2)
  module = stitch.split(loose(20), count=2)[slot]
  loss = stitch.incubation(meta, slot=slot, criterion=toys.criterion)
  outputs = stitch.apply(stitch.insert_module(meta, module, slot=slot), X)
  want = toys.criterion(outputs, Y)
  np.testing.assert_allclose(loss(module, BATCH, toys.KEY), want, rtol=1e-12)


def run(loss, params, steps=3):
  return training.run(
    loss, params, BATCH, optimizer=optax.sgd(0.1), steps=steps, batch_size=4
  )[0]


def test_incubation_of_one_module_is_ordinary_training():
  model = toys.network()
  meta = stitch.meta_model(toys.network(10), count=1)
  (module,) = stitch.split(model, count=1)
  plain = lambda m, batch, key: toys.criterion(
    stitch.apply(m, batch[0]), batch[1]
  )
  want = run(plain, model)
  got = run(stitch.incubation(meta, slot=0, criterion=toys.criterion), module)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12),
    stitch.assemble([got]).params,
    want.params,
  )


def test_parallel_jobs_equal_separate_jobs():
  meta = stitch.meta_model(toys.network(10), count=2)

  def job(slot, module):
    return run(
      stitch.incubation(meta, slot=slot, criterion=toys.criterion), module
    )

  modules = stacked_modules()
  trained = jax.jit(jax.vmap(job))(jnp.arange(2), modules)
  got = stitch.assemble(stitch.unstack_modules(trained))
  alone = jax.jit(job)  # with a traced slot too
  each = [
    alone(jnp.asarray(i), jax.tree.map(lambda x, i=i: x[i], modules))
    for i in range(2)
  ]
  separate = stitch.unstack_modules(tree.stack(each))
  want = stitch.assemble(separate)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9),
    got.params,
    want.params,
  )


def test_mistakes_are_named():
  model = toys.network()
  for count in (0, 5):
    with pytest.raises(ValueError, match=rf'count={count}: expected 1 \.\. 4'):
      stitch.split(model, count=count)
  meta = stitch.meta_model(model, count=2)
  modules = stitch.split(model, count=2)
  for make in (
    stitch.insert_module,
    lambda meta, m, slot: stitch.incubation(
      meta, slot=slot, criterion=toys.criterion
    ),
  ):
    with pytest.raises(ValueError, match=r'slot=2: expected 0 \.\. 1'):
      make(meta, modules[0], slot=2)
  with pytest.raises(ValueError, match="module 0 of 2 lacks 'embed'"):
    stitch.assemble(modules[::-1])
  with pytest.raises(ValueError, match='no modules given'):
    stitch.assemble([])
  uneven = stitch.split(model, count=3)
  with pytest.raises(ValueError, match=r'modules of \[2, 1, 1\] blocks'):
    stitch.stack_modules(uneven)
  own = stitch.split(loose(), count=2)[0]
  with pytest.raises(ValueError, match='give the slot as an integer'):
    stitch.insert_module(
      stitch.meta_model(loose(), count=2), own, slot=jnp.asarray(0)
    )
