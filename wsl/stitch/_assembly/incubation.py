"""Deep Incubation: each module is trained separately inside a meta model.

The meta model has one block in place of each module. Module i replaces block i
and is trained with all other blocks fixed, so K modules are K independent jobs
that agree on the features at their boundaries. The trained modules form the
large network, which needs little fine-tuning.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deprecation, tree, types
from wsl.stitch import _segmented
from wsl.stitch._assembly import modules

Segmented = _segmented.Segmented
Criterion = Callable[[types.Array, Any], types.Array]


def insert_module(
  meta: Segmented, module: Segmented, *, slot: int | types.Array
) -> Segmented:
  r"""Replaces one block of a meta model by a module.

  .. math:: \mathrm{head} \circ \hat b_{K-1} \circ \dots \circ \hat b_{i+1}
    \circ \mathcal{M}_i \circ \hat b_{i-1} \circ \dots \circ \hat b_0 \circ
    \mathrm{embed}

  In slot 0 the embedding is the module's, in slot K - 1 the head; otherwise
  both are the meta model's. If the module is the meta model's own block, the
  result is the meta model.

  A traced ``slot`` gives one program for all slots: the parameters of the
  m + K - 1 blocks are gathered in the order of the slot, so K networks under
  ``jax.vmap`` run as many blocks as K separate programs.

  Args:
    meta: a network of K blocks, one for each module.
    module: a module of m blocks, as from ``split``; for a traced slot as from
      ``stack_modules``, with an embedding and a head.
    slot: the index i of the block, ``0 <= i < K``; an integer or traced.

  Returns:
    A network of K - 1 + m blocks.

  Raises:
    ValueError: if there is no such slot, or if the slot is traced and the
      blocks are not stacked.

  Example:
    >>> import jax.numpy as jnp
    >>> def scale(params, h):
    ...   return h * params
    >>> one = jnp.ones(())
    >>> make = lambda blocks: Segmented(
    ...   {'embed': one, 'blocks': jnp.asarray(blocks), 'head': one},
    ...   scale, scale, scale)
    >>> small, module = make([2.0, 3.0]), make([5.0, 7.0])
    >>> insert_module(small, module, slot=1).params['blocks'].tolist()
    [2.0, 5.0, 7.0]

  Reference:
    Ni et al., "Deep Incubation: Training Large Models by Divide-and-
    Conquering", 2022, arXiv:2212.04129.
  """
  if not isinstance(slot, int):
    return _gathered(meta, module, slot)
  check_slot(meta, slot, caller='insert_module')
  before = modules.part(meta, 0, slot)
  after = modules.part(meta, slot + 1, meta.depth)
  first = module if slot == 0 else meta
  last = module if slot == meta.depth - 1 else meta
  return modules.join(first, (before, module, after), last)


def incubation(
  meta: Segmented, *, slot: int | types.Array, criterion: Criterion
) -> Callable[..., types.Array]:
  """Makes the loss that trains one module inside a meta model.

  The module is the only parameter. Blocks before it get no gradient; gradients
  pass through the blocks after it, which are fixed. The jobs of different slots
  are independent; with stacked modules they are one program::

    def job(slot, state, key):
      loss = stitch.incubation(meta, slot=slot, criterion=criterion)
      return train.advance(loss, state, data, key=key, ...)

    states = jax.vmap(lambda m: train.start(m, optimizer=optimizer))(modules)
    jax.vmap(job, (0, 0, None))(jnp.arange(K), states, key)

  With an integer ``slot`` only the needed gradients are computed. The program
  for a traced slot also differentiates the meta model's blocks: one matrix
  product more for each block after the module, two for each block before it.

  Args:
    meta: the trained meta model of K blocks.
    slot: the index of the module, ``0 <= slot < K``; an integer or traced.
    criterion: maps (outputs, targets) to a scalar.

  Returns:
    A loss ``(module, batch, key) -> scalar`` for ``train.advance``; a batch is
    (inputs, targets). With K = 1 it is the loss of ordinary training.

  Raises:
    ValueError: if there is no such slot.

  Reference:
    Ni et al., "Deep Incubation: Training Large Models by Divide-and-
    Conquering", 2022, arXiv:2212.04129.
  """
  criterion = tree.partial(criterion)
  if not isinstance(slot, int):
    return jax.tree_util.Partial(_Loss(None), criterion, meta, slot)
  check_slot(meta, slot, caller='incubation')
  return jax.tree_util.Partial(_Loss(slot), criterion, meta, None)


@dataclasses.dataclass(frozen=True)
class _Loss:
  """The loss of a slot; a static slot is part of the hash."""

  slot: int | None  # the static slot; None if it is traced

  def __call__(
    self,
    criterion: Criterion,
    meta: Segmented,
    traced_slot: types.Array | None,
    module: Segmented,
    batch: Any,
    key: types.PRNGKey,
  ) -> types.Array:
    del key
    inputs, targets = batch
    if self.slot is None:
      assert traced_slot is not None
      whole = insert_module(meta, module, slot=traced_slot)
      return criterion(_segmented.apply(whole, inputs), targets)
    # Only the module is differentiated: blocks before it run on constants, and
    # blocks after it pass the gradient of features, not of their parameters.
    h = before(meta, module, inputs, slot=self.slot)
    h = _segmented.advance(module, h, 0, module.depth)
    return criterion(after(meta, module, h, slot=self.slot), targets)


def before(
  meta: Segmented, module: Segmented, inputs: Any, *, slot: int
) -> types.Array:
  """Returns the input features of the module in a slot."""
  owner = module if slot == 0 else meta
  h = owner.embed(owner.params['embed'], inputs)
  return _segmented.advance(meta, h, 0, slot)


def after(
  meta: Segmented, module: Segmented, h: types.Array, *, slot: int
) -> types.Array:
  """Returns the network's outputs, from the module's output features."""
  h = _segmented.advance(meta, h, slot + 1, meta.depth)
  owner = module if slot == meta.depth - 1 else meta
  return owner.head(owner.params['head'], h)


def _gathered(
  meta: Segmented, module: Segmented, slot: types.Array
) -> Segmented:
  """Gathers the blocks of the network in the order of a traced slot."""
  if not (meta.stacked and module.stacked) or meta.block != module.block:
    raise ValueError(
      'insert_module: a traced slot needs a meta model and a module whose '
      'blocks are stacked and share one function: give the slot as an integer'
    )
  # Rows 0 .. K - 1 of the concatenated stacks are the meta model's, the next m
  # the module's. Step t of the network takes meta row t before the slot, then
  # the module's rows, then meta row t - m + 1.
  count, depth = meta.depth, module.depth
  step = jnp.arange(count - 1 + depth, dtype=jnp.int32)
  slot = jnp.asarray(slot, jnp.int32)
  own = (step >= slot) & (step < slot + depth)
  later = jnp.where(own, count + step - slot, step - depth + 1)
  row = jnp.where(step < slot, step, later)
  blocks = jax.tree.map(
    lambda a, b: jnp.concatenate([a, b])[row],
    meta.params['blocks'],
    module.params['blocks'],
  )
  # The owner of the embedding and of the head depends on the traced slot, so
  # both are selected entrywise; the gradient of the other copy is zero.
  ends = {
    name: jax.tree.map(
      lambda a, b, owner=owner: jnp.where(slot == owner, b, a),
      meta.params[name],
      module.params[name],
    )
    for name, owner in (('embed', 0), ('head', count - 1))
  }
  return Segmented(
    {**ends, 'blocks': blocks}, meta.embed, meta.block, meta.head
  )


def check_slot(meta: Segmented, slot: int, *, caller: str) -> None:
  """Checks that a slot is a block of the meta model."""
  if not 0 <= slot < meta.depth:
    raise ValueError(
      f'{caller}: slot={slot}: expected 0 .. {meta.depth - 1}, a block of the '
      'meta model'
    )


hybrid = deprecation.renamed('hybrid', insert_module)
