"""Module-to-module distillation: a student's parts learn from a teacher's."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stitch import _adapter, _segmented
from wsl.stitch._assembly import incubation


class Student(NamedTuple):
  """A module that is trained in the place of a teacher's.

  Attributes:
    module: as from ``split``, of any width and number of blocks.
    pre: from the meta model's features to the module's; ``None`` for the first
      module, which embeds the inputs itself.
    post: from the module's features to the meta model's; ``None`` for the last
      module, which has a head.
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
  r"""Makes the loss of one pair of modules, a teacher's and a student's.

  .. math:: L = (1 - a) \, \mathrm{criterion}(s, y) + a T^2 \frac{1}{n} \sum_b
    \mathrm{KL}(\mathrm{softmax}(t_b / T) \,\|\, \mathrm{softmax}(s_b / T))

  Teacher and student stand in the same slot of one frozen meta model and are
  fed with the same features: ``t = meta_after(teacher(feed))`` and ``s =
  meta_after(post(student(pre(feed))))``. If the student is the teacher and its
  stitches are identities, the second term and its gradient are 0.

  Args:
    meta: the meta model of K blocks in which the teacher was incubated.
    teacher: the teacher's module for this slot, as from ``split``.
    slot: which, ``0 <= slot < K``.
    criterion: maps (outputs, targets) to a scalar.
    share: a, the weight of the teacher, in 0 .. 1.
    temperature: T.
    divide: n, ``'entries'`` for batch times classes, as the official code has
      it, or ``'batch'``, the mean of the divergences; the first is weaker by
      the number of classes.

  Returns:
    A loss ``(student, batch, key) -> scalar`` for ``train.advance``, whose
    parameters are a ``Student``; a batch is (inputs, targets).

  Raises:
    ValueError: if an argument is out of range; when it is called, if the
      student has a stitch where there is no boundary, or lacks one.

  Reference:
    Lo et al., "m2mKD: Module-to-Module Knowledge Distillation for Modular
    Transformers", 2024, arXiv:2402.16918.
  """
  if not 0 <= slot < meta.depth:
    raise ValueError(
      f'slot={slot}: expected 0 .. {meta.depth - 1}, a block of the meta model'
    )
  if not 0 <= share <= 1 or temperature <= 0:
    raise ValueError(
      f'm2m: share={share} and temperature={temperature}: expected 0 .. 1 and '
      'more than 0'
    )
  if divide not in ('entries', 'batch'):
    hint = tree.nearest(divide, ['entries', 'batch'])
    raise ValueError(f"divide='{divide}'{hint}: expected 'entries' or 'batch'")
  loss = _Pair(slot, share, temperature, divide == 'batch')
  return jax.tree_util.Partial(loss, tree.partial(criterion), meta, teacher)


@dataclasses.dataclass(frozen=True)
class _Pair:
  """The loss of one slot."""

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
    divergence = kl(wanted, given, temperature=self.temperature)
    entries = divergence.size if self.by_batch else given.size
    near = self.temperature**2 * jnp.sum(divergence) / entries
    right = criterion(given, targets)
    return (1 - self.share) * right + self.share * jnp.asarray(
      near, right.dtype
    )

  def _student(
    self,
    meta: _segmented.Segmented,
    student: Student,
    inputs: Any,
    feed: types.Array,
  ) -> types.Array:
    """Returns the student's outputs."""
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


def kl(
  wanted: types.Array, given: types.Array, *, temperature: float
) -> types.Array:
  """Returns the divergence of two softmaxes, ``[B, ...]``; no gradient to one.

  Args:
    wanted: logits ``[B, ..., classes]``, taken as constants.
    given: logits of the same shape.
    temperature: both are divided by it.
  """
  first, second = (
    jax.nn.log_softmax(tree.wide(x) / temperature)
    for x in (jax.lax.stop_gradient(wanted), given)
  )
  return jnp.sum(jnp.exp(first) * (first - second), -1)
