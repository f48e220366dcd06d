"""Modules: a network cut into runs of consecutive blocks, and reassembled."""

from collections.abc import Sequence
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deprecation, tree
from wsl.stitch import _segmented

Segmented = _segmented.Segmented
_ENDS = ('embed', 'head')


def split(model: Segmented, *, count: int) -> tuple[Segmented, ...]:
  """Cuts a network into modules of consecutive blocks.

  The first module also owns the embedding and the last one the head; in the
  other modules these are ``None``. Each parameter is in exactly one module.

  Args:
    model: a network of D blocks.
    count: the number K of modules, 1 .. D. If it does not divide D, the first
      modules have one block more.

  Returns:
    K modules, each a ``Segmented`` whose embedding and head are ``None`` unless
    it owns them.

  Raises:
    ValueError: if ``count`` is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> def scale(params, h):
    ...   return h * params
    >>> params = {'embed': jnp.ones(()), 'blocks': jnp.arange(1.0, 5.0),
    ...           'head': jnp.ones(())}
    >>> parts = split(Segmented(params, scale, scale, scale), count=2)
    >>> [part.params['blocks'].tolist() for part in parts]
    [[1.0, 2.0], [3.0, 4.0]]
    >>> parts[1].params['embed'] is None
    True

  Reference:
    Ni et al., "Deep Incubation: Training Large Models by Divide-and-
    Conquering", 2022, arXiv:2212.04129.
  """
  bounds = _bounds(model, count, 'split')
  parts = [part(model, *pair) for pair in itertools.pairwise(bounds)]
  return tuple(_with_ends(own, model, i, count) for i, own in enumerate(parts))


def meta_model(model: Segmented, *, count: int) -> Segmented:
  """Makes a network of the first block of each module.

  Deep Incubation trains each module inside this small network. Take it from an
  untrained network and train it first.

  Args:
    model: a network of D blocks, the target.
    count: the number K of modules, 1 .. D.

  Returns:
    A network of K blocks, with the target's embedding and head.

  Raises:
    ValueError: if ``count`` is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> params = {'embed': {}, 'blocks': jnp.arange(4.0), 'head': {}}
    >>> add = lambda params, h: h + params
    >>> same = lambda params, h: h
    >>> small = meta_model(Segmented(params, same, add, same), count=2)
    >>> small.params['blocks'].tolist()
    [0.0, 2.0]

  Reference:
    Ni et al., "Deep Incubation: Training Large Models by Divide-and-
    Conquering", 2022, arXiv:2212.04129.
  """
  starts = _bounds(model, count, 'meta_model')[:-1]
  block = model.block
  if isinstance(block, tuple):
    blocks = tuple(model.params['blocks'][i] for i in starts)
    block = tuple(block[i] for i in starts)
  else:
    rows = np.asarray(starts)
    blocks = jax.tree.map(lambda x: x[rows], model.params['blocks'])
  return Segmented(
    {**model.params, 'blocks': blocks}, model.embed, block, model.head
  )


def assemble(modules: Sequence[Segmented]) -> Segmented:
  """Concatenates modules into one network.

  The parameters are the disjoint union of those of the modules, and
  ``assemble(split(model, count=K))`` equals the model.

  Args:
    modules: modules in their order, from ``split`` or ``unstack_modules``.

  Returns:
    The network, to be fine-tuned.

  Raises:
    ValueError: if a module other than the first has an embedding, one other
      than the last has a head, or one of these is missing; the message names
      the module.

  Reference:
    Ni et al., "Deep Incubation: Training Large Models by Divide-and-
    Conquering", 2022, arXiv:2212.04129.
  """
  if not modules:
    raise ValueError('assemble: no modules given, at least one is needed')
  last = len(modules) - 1
  for i, module in enumerate(modules):
    for name, owner in zip(_ENDS, (0, last)):
      owns = module.params[name] is not None
      if owns != (i == owner):
        has = 'has' if owns else 'lacks'
        raise ValueError(
          f"assemble: module {i} of {last + 1} {has} '{name}': it belongs to "
          f'module {owner} alone, as split has it'
        )
  return join(modules[0], modules, modules[-1])


def join(
  first: Segmented, parts: Sequence[Segmented], last: Segmented
) -> Segmented:
  """Joins the embedding of one network, blocks of several, and a head."""
  params = {'embed': first.params['embed'], 'head': last.params['head']}
  # Parts that share one block function stay one stack, which runs as a scan;
  # otherwise every block becomes an entry of a tuple with its own function.
  blocks = [part.params['blocks'] for part in parts if part.depth]
  fns = {part.block for part in parts}
  if len(fns) == 1 and parts[0].stacked:
    stacked = jax.tree.map(lambda *x: jnp.concatenate(x), *blocks)
    return Segmented(
      {**params, 'blocks': stacked}, first.embed, parts[0].block, last.head
    )
  each = [(part, i) for part in parts for i in range(part.depth)]
  singles = tuple(_segmented.block_params(part, i) for part, i in each)
  block = tuple(_segmented.block_fn(part, i) for part, i in each)
  return Segmented({**params, 'blocks': singles}, first.embed, block, last.head)


def part(model: Segmented, start: int, stop: int) -> Segmented:
  """Returns the blocks ``start .. stop - 1`` without embedding and head."""
  block = model.block
  if isinstance(block, tuple):
    block = block[start:stop]
  blocks = _segmented.block_params(model, slice(start, stop))
  params = {'embed': None, 'blocks': blocks, 'head': None}
  return Segmented(params, model.embed, block, model.head)


def stack_modules(modules: Sequence[Segmented]) -> Segmented:
  """Stacks modules of equal shapes, to train them in one vmapped program.

  All modules must have the same leaves, so each gets a copy of the embedding
  and of the head. ``insert_module`` and ``incubation`` use only the owner's;
  the other copies have zero gradients and ``unstack_modules`` drops them.

  Args:
    modules: K modules with equal numbers of stacked blocks.

  Returns:
    One tree with the structure of a module and leaves ``[K, ...]``.

  Raises:
    ValueError: if the modules have different numbers of blocks, or blocks that
      are not stacked.
  """
  ends = {
    'embed': modules[0].params['embed'],
    'head': modules[-1].params['head'],
  }
  sizes = [module.depth for module in modules]
  if len(set(sizes)) > 1 or not all(module.stacked for module in modules):
    raise ValueError(
      f'stack_modules: modules of {sizes} blocks: expected equal numbers of '
      'blocks that share one function; train the modules one by one instead'
    )
  whole = [
    Segmented({**m.params, **ends}, m.embed, m.block, m.head) for m in modules
  ]
  return tree.stack(whole)


def unstack_modules(stacked: Segmented) -> tuple[Segmented, ...]:
  """Undoes ``stack_modules``, for ``assemble``.

  Args:
    stacked: from ``stack_modules``, leaves ``[K, ...]``.

  Returns:
    K modules; the first owns the embedding and the last the head.
  """
  count = jnp.shape(jax.tree.leaves(stacked)[0])[0]
  rows = [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(count)]
  return tuple(_with_ends(own, own, i, count) for i, own in enumerate(rows))


def _with_ends(
  module: Segmented, model: Segmented, index: int, count: int
) -> Segmented:
  """Gives the first module the model's embedding, and the last one its head."""
  owners = {'embed': 0, 'head': count - 1}
  ends = {
    name: model.params[name] if index == owner else None
    for name, owner in owners.items()
  }
  return dataclasses.replace(module, params={**module.params, **ends})


def _bounds(model: Segmented, count: int, name: str) -> list[int]:
  """Returns the first block of each module, and the depth at the end."""
  if not 1 <= count <= model.depth:
    raise ValueError(
      f'{name}: count={count}: expected 1 .. {model.depth}, the number of '
      'blocks'
    )
  # The first D mod K modules have one block more than the others.
  sizes = [len(rows) for rows in np.array_split(np.arange(model.depth), count)]
  return [0, *np.cumsum(sizes).tolist()]


meta = deprecation.renamed('meta', meta_model)
