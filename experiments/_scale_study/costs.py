"""The cost of an operation on one device, and the seconds that it predicts.

A machine is described by rates of one device. On D virtual devices of a CPU
these are measured while all D work, so that each has its share of the cores.
"""

from typing import NamedTuple


class Size(NamedTuple):
  """A model of equal square leaves, and where it is.

  Attributes:
    side: rows and columns of a leaf.
    leaves: L; the model has L side^2 parameters.
    models: T, the number of task vectors.
    devices: D, over which the last axis of each leaf is sharded.
    itemsize: bytes of an entry.
    rows: images of the evaluation.
    cpu: whether the devices are CPUs, on which some programs differ.
  """

  side: int
  leaves: int
  models: int
  devices: int
  itemsize: int = 4
  rows: int = 0
  cpu: bool = True

  @property
  def parameters(self) -> int:
    """N, the parameters of one model."""
    return self.leaves * self.side**2

  @property
  def share(self) -> float:
    """The bytes of one model on one device."""
    return self.parameters * self.itemsize / self.devices

  def all_reduce(self, result: float) -> float:
    """Bytes that a device sends: a reduce-scatter and an all-gather, in rings.

    Args:
      result: bytes of the result.
    """
    return 2 * result * (self.devices - 1) / self.devices


class Cost(NamedTuple):
  """What one call of a program takes on each device.

  Attributes:
    memory: bytes read and written.
    operations: of entries, such as additions and comparisons.
    products: multiplications and additions of matrix products.
    decompositions: the sum of m n min(m, n) over decomposed matrices.
    link: bytes sent to other devices.
    collectives: exchanges between devices.
    arguments: bytes of the operands.
    results: bytes of the results.
    temporaries: bytes of intermediate arrays at the peak.
  """

  memory: float = 0.0
  operations: float = 0.0
  products: float = 0.0
  decompositions: float = 0.0
  link: float = 0.0
  collectives: float = 0.0
  arguments: float = 0.0
  results: float = 0.0
  temporaries: float = 0.0

  @property
  def peak(self) -> float:
    """Bytes that a device holds: operands, results, temporaries."""
    return self.arguments + self.results + self.temporaries


class Machine(NamedTuple):
  """Rates of one device, per second.

  Attributes:
    memory: bytes read and written by a copy.
    operations: of entries in the cache.
    products: multiplications and additions of a product of matrices.
    decompositions: m n min(m, n) of a singular value decomposition.
    link: bytes sent by an all-reduce; infinite for one device.
    call: seconds of a program that does nothing.
    exchange: seconds of an all-reduce of one number.
  """

  memory: float
  operations: float
  products: float
  decompositions: float
  link: float
  call: float
  exchange: float


def seconds(cost: Cost, machine: Machine) -> float:
  """Predicts the time of a call: a roofline, and what cannot overlap.

  Entries are read, computed and written in one loop, so that the slower of
  memory and arithmetic counts. Decompositions, exchanges and the start of the
  program are added.
  """
  arithmetic = (
    cost.operations / machine.operations + cost.products / machine.products
  )
  return (
    max(cost.memory / machine.memory, arithmetic)
    + cost.decompositions / machine.decompositions
    + cost.link / machine.link
    + cost.collectives * machine.exchange
    + machine.call
  )


def bound(cost: Cost, machine: Machine) -> str:
  """Names the term that takes most of the predicted time."""
  terms = {
    'memory': cost.memory / machine.memory,
    'arithmetic': cost.operations / machine.operations
    + cost.products / machine.products,
    'decompositions': cost.decompositions / machine.decompositions,
    'links': cost.link / machine.link + cost.collectives * machine.exchange,
    'call': machine.call,
  }
  return max(terms, key=lambda name: terms[name])
