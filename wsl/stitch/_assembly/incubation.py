"""Incubation: every module is trained alone, within a small meta model."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stitch import _segmented
from wsl.stitch._assembly import modules

Segmented = _segmented.Segmented
Criterion = Callable[[types.Array, Any], types.Array]


def hybrid(
  meta: Segmented, module: Segmented, *, slot: int | types.Array
) -> Segmented:
  r"""Puts a module in the place of one block of the meta model.

  .. math:: \mathrm{head} \circ \hat b_{K-1} \circ \dots \circ \hat b_{i+1}
    \circ \mathcal{M}_i \circ \hat b_{i-1} \circ \dots \circ \hat b_0 \circ
    \mathrm{embed}

  Module 0 brings its own embedding and module K - 1 its own head; otherwise
  they are the meta model's. With the meta model's own block as the module the
  hybrid is the meta model.

  A traced ``slot`` gives one program for all slots: the parameters of the m +
  K - 1 blocks are gathered in the order of the slot, so that K hybrids under
  ``jax.vmap`` run as many blocks as K programs would.

  Args:
    meta: K blocks, one for each module.
    module: m blocks, as from ``split``; for a traced slot as from
      ``stack_modules``, with an embedding and a head.
    slot: the place i, ``0 <= i < K``; an integer, or a traced one.

  Returns:
    A network of K - 1 + m blocks.

  Raises:
    ValueError: if there is no such slot, or if a traced one meets blocks that
      are not stacked.

  Example:
    >>> import jax.numpy as jnp
    >>> def scale(params, h):
    ...   return h * params
    >>> one = jnp.ones(())
    >>> make = lambda blocks: Segmented(
    ...   {'embed': one, 'blocks': jnp.asarray(blocks), 'head': one},
    ...   scale, scale, scale)
    >>> small, module = make([2.0, 3.0]), make([5.0, 7.0])
    >>> hybrid(small, module, slot=1).params['blocks'].tolist()
    [2.0, 5.0, 7.0]

  Reference:
    Ni et al., "Deep Incubation: Training Large Models by Divide-and-
    Conquering", 2022, arXiv:2212.04129.
  """
  if not isinstance(slot, int):
    return _gathered(meta, module, slot)
  _check(meta, slot)
  before = modules.part(meta, 0, slot)
  after = modules.part(meta, slot + 1, meta.depth)
  first = module if slot == 0 else meta
  last = module if slot == meta.depth - 1 else meta
  return modules.join(first, (before, module, after), last)


def incubation(
  meta: Segmented, *, slot: int | types.Array, criterion: Criterion
) -> Callable[..., types.Array]:
  """Makes the loss by which one module is trained, for ``train.advance``.

  The module is the only parameter: what comes before it gets no gradient, what
  comes after it is fixed, and gradients pass through it. Jobs do not speak to
  each other; with stacked modules they are one program::

    def job(slot, state, key):
      loss = stitch.incubation(meta, slot=slot, criterion=criterion)
      return train.advance(loss, state, data, key=key, ...)

    states = jax.vmap(lambda m: train.start(m, optimizer=optimizer))(modules)
    jax.vmap(job, (0, 0, None))(jnp.arange(K), states, key)

  With an integer ``slot`` nothing is computed in vain. The one program for all
  slots also differentiates the meta model's own blocks: one more product for
  each of those after the module, two for those before it.

  Args:
    meta: the trained meta model of K blocks.
    slot: which module is trained; an integer, or a traced one.
    criterion: maps (outputs, targets) to a scalar.

  Returns:
    A loss ``(module, batch, key) -> scalar``; a batch is (inputs, targets).
    With K = 1 it is the loss of plain training.

  Raises:
    ValueError: if there is no such slot.

  Reference:
    Ni et al., 2022, arXiv:2212.04129.
  """
  criterion = tree.partial(criterion)
  if not isinstance(slot, int):
    return jax.tree_util.Partial(_of_any_slot, criterion, meta, slot)
  _check(meta, slot)
  return jax.tree_util.Partial(_OfSlot(slot), criterion, meta)


@dataclasses.dataclass(frozen=True)
class _OfSlot:
  """The loss of one slot, known before tracing."""

  slot: int

  def __call__(
    self,
    criterion: Criterion,
    meta: Segmented,
    module: Segmented,
    batch: Any,
    key: types.PRNGKey,
  ) -> types.Array:
    del key
    inputs, targets = batch
    h = before(meta, module, inputs, slot=self.slot)
    h = _segmented.advance(module, h, 0, module.depth)
    return criterion(after(meta, module, h, slot=self.slot), targets)


def before(
  meta: Segmented, module: Segmented, inputs: Any, *, slot: int
) -> types.Array:
  """Returns what the module in a slot is fed with."""
  owner = module if slot == 0 else meta
  h = owner.embed(owner.params['embed'], inputs)
  return _segmented.advance(meta, h, 0, slot)


def after(
  meta: Segmented, module: Segmented, h: types.Array, *, slot: int
) -> types.Array:
  """Returns the hybrid's outputs, from what the module gives."""
  h = _segmented.advance(meta, h, slot + 1, meta.depth)
  owner = module if slot == meta.depth - 1 else meta
  return owner.head(owner.params['head'], h)


def _of_any_slot(
  criterion: Criterion,
  meta: Segmented,
  slot: types.Array,
  module: Segmented,
  batch: Any,
  key: types.PRNGKey,
) -> types.Array:
  del key
  inputs, targets = batch
  net = hybrid(meta, module, slot=slot)
  return criterion(_segmented.apply(net, inputs), targets)


def _gathered(
  meta: Segmented, module: Segmented, slot: types.Array
) -> Segmented:
  """Orders the blocks of a hybrid by a traced slot."""
  if not (meta.stacked and module.stacked) or meta.block != module.block:
    raise ValueError(
      'hybrid: a traced slot needs a meta model and a module whose blocks are '
      'stacked and share one function: give the slot as an integer'
    )
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


def _check(meta: Segmented, slot: int) -> None:
  if not 0 <= slot < meta.depth:
    raise ValueError(
      f'slot={slot}: expected 0 .. {meta.depth - 1}, a block of the meta model'
    )
