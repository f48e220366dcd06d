"""Module-to-module distillation (m2mKD): student modules from a teacher's.

Teacher and student modules are inserted into the same slot of a shared, frozen
meta model, and the student learns from the outputs of the teacher's network.
A job needs one module of each network in memory, never a whole network.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stitch import _adapter, _distil, _segmented
from wsl.stitch._assembly import incubation


class Student(NamedTuple):
  """A student's module, with adapters to the width of the meta model.

  Attributes:
    module: a module as from ``split``, of any width and number of blocks.
    pre: adapter from the meta model's features to the module's; ``None`` for
      the first module, which embeds the inputs itself.
    post: adapter from the module's features to the meta model's; ``None`` for
      the last module, which has a head.
  """

  module: _segmented.Segmented
  pre: _adapter.Adapter | None = None
  post: _adapter.Adapter | None = None


def m2m(
  meta: _segmented.Segmented,
  teacher: _segmented.Segmented,
  *,
  slot: int,
  criterion: incubation.Criterion,
  share: float = 0.5,
  temperature: float = 1.0,
  divide: str = 'entries',
) -> Callable[..., types.Array]:
  r"""Makes the loss that distils a teacher's module into a student's.

  .. math:: L = (1 - a) \, \mathrm{criterion}(s, y) + a T^2 \frac{1}{n} \sum_b
    \mathrm{KL}(\mathrm{softmax}(t_b / T) \,\|\, \mathrm{softmax}(s_b / T))

  Both modules have the same input, the meta model's features x before the slot:
  ``t = after(teacher(x))`` and ``s = after(post(student(pre(x))))``, where
  ``after`` is the meta model from block slot + 1. If the student equals the
  teacher and its adapters are identities, the second term and its gradient are
  0.

  Args:
    meta: the frozen meta model of K blocks in which the teacher was trained.
    teacher: the teacher's module for this slot, as from ``split``.
    slot: the index of the module, ``0 <= slot < K``.
    criterion: maps (outputs, targets) to a scalar.
    share: a, the weight of the distillation term, in 0 .. 1.
    temperature: T, above 0.
    divide: the divisor n: ``'entries'`` for batch size times classes, as in the
      official code, or ``'batch'`` for the batch size. The first makes the term
      smaller by the number of classes.

  Returns:
    A loss ``(student, batch, key) -> scalar`` for ``train.advance``, whose
    parameters are a ``Student``; a batch is (inputs, targets).

  Raises:
    ValueError: if an argument is out of range; when the loss is called, if the
      student has an adapter at an end of the network, or lacks one inside.

  Reference:
    Lo et al., "m2mKD: Module-to-Module Knowledge Distillation for Modular
    Transformers", 2024, arXiv:2402.16918.
  """
  tree.check_scalars('m2m', share=share, temperature=temperature)
  incubation.check_slot(meta, slot, caller='m2m')
  if not 0 <= share <= 1 or temperature <= 0:
    raise ValueError(
      f'm2m: share={share} and temperature={temperature}: expected 0 .. 1 and '
      'more than 0'
    )
  _distil.check_divisor(divide, caller='m2m')
  loss = _Pair(slot, share, temperature, divide == 'batch')
  return jax.tree_util.Partial(loss, tree.partial(criterion), meta, teacher)


@dataclasses.dataclass(frozen=True)
class _Pair:
  """The loss of ``m2m``, hashable by its hyperparameters."""

  slot: int
  share: float
  temperature: float
  by_batch: bool

  def __call__(
    self,
    criterion: incubation.Criterion,
    meta: _segmented.Segmented,
    teacher: _segmented.Segmented,
    student: Student,
    batch: Any,
    key: types.PRNGKey,
  ) -> types.Array:
    del key
    inputs, targets = batch
    feed = incubation.before(meta, teacher, inputs, slot=self.slot)
    h = _segmented.advance(teacher, feed, 0, teacher.depth)
    wanted = incubation.after(meta, teacher, h, slot=self.slot)
    given = self._student(meta, student, inputs, feed)
    distilled = _distil.soft(
      wanted, given, temperature=self.temperature, by_batch=self.by_batch
    )
    supervised = criterion(given, targets)
    return (1 - self.share) * supervised + self.share * jnp.asarray(
      distilled, supervised.dtype
    )

  def _student(
    self,
    meta: _segmented.Segmented,
    student: Student,
    inputs: Any,
    feed: types.Array,
  ) -> types.Array:
    """Returns the outputs of the meta model with the student's module."""
    module, last = student.module, meta.depth - 1
    for name, stitch, end in (
      ('pre', student.pre, 0),
      ('post', student.post, last),
    ):
      if (stitch is None) != (self.slot == end):
        wrong = 'lacks' if stitch is None else 'has'
        raise ValueError(
          f"m2m: the student in slot {self.slot} {wrong} '{name}': every "
          f'module but that of slot {end} has one'
        )
    h = feed
    if self.slot == 0:
      h = module.embed(module.params['embed'], inputs)
    if student.pre is not None:
      h = _adapter.apply_adapter(student.pre, h)
    h = _segmented.advance(module, h, 0, module.depth)
    if student.post is not None:
      h = _adapter.apply_adapter(student.post, h)
    return incubation.after(meta, module, h, slot=self.slot)
