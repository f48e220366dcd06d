"""The functions, classes and dtypes that a file of PyTorch may name.

Each is a description: a dtype, or a function of ours that describes a tensor.
Nothing of PyTorch is imported.
"""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from wsl.checkpoint._read import sizes

_DTYPES = {
  'float64': np.dtype('<f8'),
  'float32': np.dtype('<f4'),
  'float16': np.dtype('<f2'),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float8_e4m3fn': np.dtype(ml_dtypes.float8_e4m3fn),
  'float8_e5m2': np.dtype(ml_dtypes.float8_e5m2),
  'float8_e4m3fnuz': np.dtype(ml_dtypes.float8_e4m3fnuz),
  'float8_e5m2fnuz': np.dtype(ml_dtypes.float8_e5m2fnuz),
  'float8_e8m0fnu': np.dtype(ml_dtypes.float8_e8m0fnu),
  'int64': np.dtype('<i8'),
  'int32': np.dtype('<i4'),
  'int16': np.dtype('<i2'),
  'int8': np.dtype('<i1'),
  'uint64': np.dtype('<u8'),
  'uint32': np.dtype('<u4'),
  'uint16': np.dtype('<u2'),
  'uint8': np.dtype('<u1'),
  'bool': np.dtype(np.bool_),
  'complex64': np.dtype('<c8'),
  'complex128': np.dtype('<c16'),
}
_STORAGES = {
  'Double': 'float64',
  'Float': 'float32',
  'Half': 'float16',
  'BFloat16': 'bfloat16',
  'Long': 'int64',
  'Int': 'int32',
  'Short': 'int16',
  'Char': 'int8',
  'Byte': 'uint8',
  'Bool': 'bool',
  'ComplexFloat': 'complex64',
  'ComplexDouble': 'complex128',
}
# No tuples: the hash of one that holds another many times takes for ever.
_KEYS = (str, int, float, bool, type(None))
UNTYPED = np.dtype(np.uint8)


class Global(NamedTuple):
  """A name of the table, as it lies on the stack."""

  name: str


class Tensor(NamedTuple):
  """A tensor: a storage, and the places of its entries in it.

  Attributes:
    storage: the storage.
    dtype: the dtype.
    offset: the index of the first entry.
    shape: the size of each axis.
    strides: the distance of neighbours along each axis, in entries.
  """

  storage: Any
  dtype: np.dtype
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def extent(self) -> int:
    """Returns the number of entries from the first to the last."""
    if 0 in self.shape:
      return 0
    return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides))

  def is_contiguous(self) -> bool:
    """Returns True if the entries follow each other in C order."""
    step = 1
    for n, stride in zip(reversed(self.shape), reversed(self.strides)):
      if n != 1 and stride != step:
        return 0 in self.shape
      step *= n
    return True


class Attributes(dict[str, Any]):
  """The attributes of an object, by name."""


def storage_dtype(kind: Any) -> np.dtype:
  """Returns the dtype of a storage's class."""
  found = TABLE[kind.name]
  if not isinstance(found, np.dtype) or not kind.name.endswith('Storage'):
    raise TypeError(kind)
  return found


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
  """Describes a tensor of the first versions of PyTorch."""
  return _describe(storage, storage.kind, offset, shape, strides)


def _tensor_v2(
  storage: Any,
  offset: Any,
  shape: Any,
  strides: Any,
  requires_grad: Any = False,
  hooks: Any = None,
  flags: Any = None,
) -> Tensor:
  """Describes a tensor of a typed storage."""
  del requires_grad, hooks
  _check_flags(flags)
  return _describe(storage, storage.kind, offset, shape, strides)


def _tensor_v3(
  storage: Any,
  offset: Any,
  shape: Any,
  strides: Any,
  requires_grad: Any,
  hooks: Any,
  dtype: Any,
  flags: Any = None,
) -> Tensor:
  """Describes a tensor of an untyped storage, with its dtype."""
  del requires_grad, hooks
  _check_flags(flags)
  return _describe(storage, TABLE[dtype.name], offset, shape, strides)


def _describe(
  storage: Any, dtype: Any, offset: Any, shape: Any, strides: Any
) -> Tensor:
  """Checks that a tensor lies within its storage."""
  integers = [offset, *shape, *strides]
  if not all(type(n) is int and n >= 0 for n in integers):
    raise TypeError(integers)
  sizes.check_shape(shape, dtype.itemsize)
  tensor = Tensor(storage, dtype, offset, tuple(shape), tuple(strides))
  # An untyped storage counts bytes, and its tensors count their entries.
  size = storage.size * storage.kind.itemsize // dtype.itemsize
  if len(shape) != len(strides) or offset + tensor.extent() > size:
    raise ValueError('a tensor reaches beyond its storage')
  return tensor


def _check_flags(flags: Any) -> None:
  """Raises for a tensor that is stored without its conjugation or sign."""
  if flags and any(flags.values()):
    raise ValueError('a tensor is conjugated or negated when it is read')


def _parameter(data: Any, *rest: Any) -> Any:
  """Describes a parameter by its tensor; its state is left out."""
  del rest
  return _is_tensor(data)


def _from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
  """Describes a tensor with attributes, which are left out."""
  del kind, state
  return _is_tensor(TABLE[function.name](*arguments))


def _is_tensor(value: Any) -> Any:
  """Checks that a value describes a tensor."""
  if not isinstance(value, Tensor):
    raise TypeError(value)
  return value


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
  """Returns an OrderedDict as a dict."""
  return {key(name): value for name, value in pairs}


def _object() -> Attributes:
  """Describes an object before its attributes are set."""
  return Attributes()


def key(value: Any) -> Any:
  """Checks the key of a dict."""
  if not isinstance(value, _KEYS):
    raise TypeError(value)
  return value


TABLE: dict[str, Any] = {
  # The data set of the public model zoos: only its attributes are read.
  'checkpoints_to_datasets.dataset_base.ModelDatasetBase': _object,
  'collections.OrderedDict': _ordered,
  'torch._utils._rebuild_tensor': _tensor,
  'torch._utils._rebuild_tensor_v2': _tensor_v2,
  'torch._utils._rebuild_tensor_v3': _tensor_v3,
  'torch._utils._rebuild_parameter': _parameter,
  'torch._utils._rebuild_parameter_with_state': _parameter,
  'torch._tensor._rebuild_from_type_v2': _from_type,
  'torch.Size': tuple,
  'torch.device': lambda kind, *index: kind,
  'torch.Tensor': None,
  'torch.nn.parameter.Parameter': None,
  'torch.nn.parameter.Buffer': None,
  'torch.storage.UntypedStorage': UNTYPED,
  **{f'torch.{name}': dtype for name, dtype in _DTYPES.items()},
  **{
    f'torch.{name}Storage': _DTYPES[dtype] for name, dtype in _STORAGES.items()
  },
}
