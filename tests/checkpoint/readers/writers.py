"""Small writers of foreign formats, byte by byte, for tests of the readers."""

import io
import struct
from typing import Any, NamedTuple
import zipfile

import numpy as np

STORAGES = {
  'float64': 'DoubleStorage',
  'float32': 'FloatStorage',
  'float16': 'HalfStorage',
  'bfloat16': 'BFloat16Storage',
  'int64': 'LongStorage',
  'int32': 'IntStorage',
  'int16': 'ShortStorage',
  'int8': 'CharStorage',
  'uint8': 'ByteStorage',
  'bool': 'BoolStorage',
  'complex64': 'ComplexFloatStorage',
  'complex128': 'ComplexDoubleStorage',
}
GGUF_TYPES = {
  'float32': 0,
  'float16': 1,
  'int8': 24,
  'int16': 25,
  'int32': 26,
  'int64': 27,
  'float64': 28,
  'bfloat16': 30,
}


class Tensor(NamedTuple):
  """A view of a storage of PyTorch."""

  storage: np.ndarray
  shape: tuple[int, ...]
  strides: tuple[int, ...]
  offset: int = 0


class Call(NamedTuple):
  """A call of a function by name."""

  module: str
  name: str
  arguments: tuple[Any, ...]


def whole(array):
  """Returns an array as a tensor of its own."""
  array = np.asarray(array, order='C')
  strides = tuple(s // array.itemsize for s in array.strides)
  return Tensor(array.reshape(-1), array.shape, strides)


def pickled(node, storages):
  """Pickles containers, numbers, strings and tensors, by protocol 2."""
  return b'\x80\x02' + _opcodes(node, storages) + b'.'


def _opcodes(node, storages):
  """Returns the instructions that push a value."""
  push = lambda x: _opcodes(x, storages)
  if node is None or isinstance(node, bool):
    return {None: b'N', True: b'\x88', False: b'\x89'}[node]
  if isinstance(node, int):
    data = node.to_bytes(9, 'little', signed=True)
    return b'\x8a\x09' + data
  if isinstance(node, float):
    return b'G' + struct.pack('>d', node)
  if isinstance(node, str):
    data = node.encode()
    return b'X' + struct.pack('<I', len(data)) + data
  if isinstance(node, Call):
    name = f'c{node.module}\n{node.name}\n'.encode()
    return name + push(tuple(node.arguments)) + b'R'
  if isinstance(node, Tensor):
    return _tensor(node, storages)
  if isinstance(node, dict):
    items = b''.join(push(k) + push(v) for k, v in node.items())
    return b'}(' + items + b'u'
  items = b''.join(map(push, node))
  return (
    b'(' + items + b't' if isinstance(node, tuple) else b'](' + items + b'e'
  )


def _tensor(tensor, storages):
  """Returns the instructions that build a tensor of a storage."""
  known = [key for key, x in storages.items() if x is tensor.storage]
  key = known[0] if known else str(len(storages))
  storages[key] = tensor.storage
  dtype = tensor.storage.dtype.name
  kind = STORAGES.get(dtype, 'UntypedStorage')
  module = 'torch' if dtype in STORAGES else 'torch.storage'
  size = tensor.storage.size if dtype in STORAGES else tensor.storage.nbytes
  push = lambda x: _opcodes(x, storages)
  identifier = b'(' + push('storage') + f'c{module}\n{kind}\n'.encode()
  identifier += b''.join(map(push, (key, 'cpu', size))) + b'tQ'
  places = (tensor.offset, tensor.shape, tensor.strides, False)
  arguments = identifier + b''.join(map(push, places))
  arguments += push(Call('collections', 'OrderedDict', ()))
  version = b'v2'
  if dtype not in STORAGES:
    arguments, version = arguments + f'ctorch\n{dtype}\n'.encode(), b'v3'
  name = b'ctorch._utils\n_rebuild_tensor_' + version + b'\n'
  return name + b'(' + arguments + b'tR'


def torch_zip(path, node, *, pickle=None, order='little', name='archive'):
  """Writes a file of PyTorch since 1.6."""
  storages = {}
  program = pickled(node, storages) if pickle is None else pickle
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(f'{name}/data.pkl', program)
    archive.writestr(f'{name}/byteorder', order)
    for key, storage in storages.items():
      archive.writestr(f'{name}/data/{key}', storage.tobytes())
    archive.writestr(f'{name}/version', '3\n')


def torch_legacy(path, node):
  """Writes a file of PyTorch before 1.6."""
  storages = {}
  content = pickled(node, storages)
  magic = b'\x80\x02\x8a\x0a' + (0x1950A86A20F9469CFC6C).to_bytes(10, 'little')
  parts = [
    magic + b'.',
    pickled(1001, {}),
    pickled({'little_endian': True}, {}),
  ]
  parts += [content, pickled(list(storages), {})]
  for storage in storages.values():
    parts += [struct.pack('<q', storage.size), storage.tobytes()]
  path.write_bytes(b''.join(parts))


def gguf(path, arrays, *, kinds=None, version=3, notes=None, alignment=32):
  """Writes a GGUF file."""
  text = lambda x: struct.pack('<Q', len(x.encode())) + x.encode()
  notes = {'general.name': 'tiny', **(notes or {})}
  out = io.BytesIO()
  out.write(b'GGUF' + struct.pack('<I', version))
  out.write(struct.pack('<QQ', len(arrays), len(notes) + 2))
  for key, value in notes.items():
    out.write(text(key) + struct.pack('<I', 8) + text(value))
  out.write(text('general.alignment') + struct.pack('<II', 4, alignment))
  out.write(
    text('tokens') + struct.pack('<IIQ', 9, 8, 2) + text('a') + text('b')
  )
  place, payload = 0, b''
  for name, array in arrays.items():
    kind = (kinds or {}).get(name, GGUF_TYPES.get(array.dtype.name, 0))
    out.write(text(name) + struct.pack('<I', array.ndim))
    out.write(struct.pack(f'<{array.ndim}Q', *reversed(array.shape)))
    out.write(struct.pack('<IQ', kind, place))
    payload += array.tobytes() + bytes(-array.nbytes % alignment)
    place = len(payload)
  out.write(bytes(-out.tell() % alignment))
  path.write_bytes(out.getvalue() + payload)
