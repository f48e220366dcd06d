"""A pickle machine that builds containers and descriptions of tensors.

A pickle is a program: it may call any function by name. This machine knows the
instructions that ``torch.save`` uses for tensors, containers, numbers and
strings. Names are looked up in a table of descriptions, never imported. What is
not in it, and whatever is made of it, becomes an ``Opaque`` mark with its name,
which is refused unless it lies outside of the part that is loaded.
"""

from collections.abc import Callable
import io
from typing import Any, BinaryIO, NamedTuple

from wsl.checkpoint._read.torch import globals as globals_lib
from wsl.checkpoint._read.torch import instructions

_MARK = object()
_PUSH = frozenset(
  {'BININT', 'BININT1', 'BININT2', 'LONG1', 'LONG4', 'BINFLOAT'}
  | {'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8', 'BINSTRING'}
  | {'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8'}
)
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_EMPTY: dict[str, Callable[[], Any]] = {
  'EMPTY_DICT': dict,
  'EMPTY_LIST': list,
  'EMPTY_TUPLE': tuple,
}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


_KNOWN = frozenset(
  {'PROTO', 'FRAME', 'STOP', 'MARK', 'TUPLE', 'APPEND', 'APPENDS', 'SETITEM'}
  | {'NEWOBJ'}
  | {'SETITEMS', 'BINPUT', 'LONG_BINPUT', 'BINGET', 'LONG_BINGET', 'MEMOIZE'}
  | {'GLOBAL', 'STACK_GLOBAL', 'REDUCE', 'BUILD', 'BINPERSID'}
  | _PUSH.union(_CONSTANTS, _EMPTY, _TUPLES)
)


class Storage(NamedTuple):
  """A storage: its key in the file, its type and its number of elements."""

  kind: Any
  key: str
  size: int


class Opaque(NamedTuple):
  """Something that only code could make: the name that the pickle asks for."""

  name: str


class Named(NamedTuple):
  """What a pickle names: storages by key, and names not in the table."""

  storages: dict[str, Storage]
  refused: list[str]


def run(program: bytes | BinaryIO, named: Named | None = None) -> Any:
  """Runs a pickle to its end.

  Args:
    program: the bytes, or a file that is read up to the end of the pickle.
    named: is filled with what the pickle names.

  Returns:
    Dicts, lists, tuples, numbers, strings, ``globals.Tensor`` and ``Opaque``.

  Raises:
    instructions.RefusedError: if it has an instruction that only other programs
      need.
    ValueError: if it is damaged; other exceptions of malformed operands are
      turned into it.
  """
  file: Any = io.BytesIO(program) if isinstance(program, bytes) else program
  if not isinstance(program, bytes):
    file = instructions.Bounded(program)
  machine = _Machine(Named({}, []) if named is None else named)
  try:
    for name, argument in instructions.read(file, _KNOWN):
      if name == 'STOP':
        return machine.stack.pop()
      machine.step(name, argument)
  except (IndexError, TypeError, KeyError, AttributeError, OverflowError):
    raise ValueError('its pickle is malformed') from None
  raise ValueError('its pickle has no end')


class _Machine:
  """The stack and the memo of a running pickle."""

  def __init__(self, named: Named) -> None:
    self.named = named
    self.stack: list[Any] = []
    self.memo: dict[int, Any] = {}

  def step(self, name: str, argument: Any) -> None:
    """Executes one instruction."""
    stack = self.stack
    if name in _PUSH:
      stack.append(argument)
    elif name in ('BINPUT', 'LONG_BINPUT'):
      self.memo[argument] = stack[-1]
    elif name in ('BINGET', 'LONG_BINGET'):
      stack.append(self.memo[argument])
    elif name == 'MEMOIZE':
      self.memo[len(self.memo)] = stack[-1]
    elif name == 'MARK':
      stack.append(_MARK)
    elif name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
      stack.append(_EMPTY[name]())
    elif name in _TUPLES:
      stack[-_TUPLES[name] :] = [tuple(self._top(_TUPLES[name]))]
    elif name == 'TUPLE':
      items = self._to_mark()
      stack.append(tuple(items))
    elif name in ('APPEND', 'APPENDS'):
      items = [stack.pop()] if name == 'APPEND' else self._to_mark()
      self._container(list).extend(items)
    elif name in ('SETITEM', 'SETITEMS'):
      self._set_items(self._pop(2) if name == 'SETITEM' else self._to_mark())
    elif name == 'GLOBAL':
      stack.append(self._find(*argument))
    elif name == 'STACK_GLOBAL':
      stack.append(self._find(*self._pop(2)))
    elif name in ('REDUCE', 'NEWOBJ'):
      function, arguments = self._pop(2)
      stack.append(_call(function, arguments))
    elif name == 'BUILD':
      self._build(stack.pop())
    elif name == 'BINPERSID':
      storage = _storage(stack.pop())
      self.named.storages[storage.key] = storage
      stack.append(storage)

  def _find(self, module: Any, name: Any) -> Any:
    """Returns the description of a function, a class or a dtype."""
    if not isinstance(module, str) or not isinstance(name, str):
      raise TypeError(module)
    full = f'{module}.{name}'
    if full in globals_lib.TABLE:
      return globals_lib.Global(full)
    self.named.refused.append(full)
    return Opaque(full)

  def _top(self, count: int) -> list[Any]:
    """Returns the last items, none of them a mark."""
    items = self.stack[-count:]
    if len(items) < count or any(item is _MARK for item in items):
      raise IndexError(count)
    return items

  def _pop(self, count: int) -> list[Any]:
    """Removes and returns the last items."""
    items = self._top(count)
    del self.stack[-count:]
    return items

  def _to_mark(self) -> list[Any]:
    """Removes and returns the items above the last mark."""
    place = len(self.stack) - 1
    while self.stack[place] is not _MARK:
      place -= 1
      if place < 0:
        raise IndexError(place)
    items = self.stack[place + 1 :]
    del self.stack[place:]
    return items

  def _container(self, kind: type) -> Any:
    """Returns the container at the top; one to throw away if it is opaque."""
    if type(self.stack[-1]) is Opaque:
      return kind()
    if type(self.stack[-1]) is not kind:
      raise TypeError(kind)
    return self.stack[-1]

  def _build(self, state: Any) -> None:
    """Sets attributes of the object at the top; others have none here."""
    if type(self.stack[-1]) is not globals_lib.Attributes:
      self._container(dict)  # attributes of an OrderedDict are left out
    elif type(state) is dict:
      self.stack[-1].update(state)
    else:
      raise TypeError(state)

  def _set_items(self, items: list[Any]) -> None:
    """Adds keys and values to the dict at the top."""
    target = self._container(dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
      target[globals_lib.key(key)] = value


def _call(function: Any, arguments: Any) -> Any:
  """Applies a function of the table; what others make stays opaque."""
  if isinstance(function, Opaque):
    return function
  if not isinstance(function, globals_lib.Global):
    raise TypeError(function)
  rebuild = globals_lib.TABLE[function.name]
  if not callable(rebuild) or not isinstance(arguments, tuple):
    raise TypeError(function.name)
  return rebuild(*arguments)


def _storage(identifier: Any) -> Storage:
  """Returns the storage that a persistent identifier names."""
  label, kind, key, _, size, *view = identifier
  if not isinstance(label, str) or label != 'storage' or any(view):
    raise instructions.RefusedError('a view of a storage')
  if not isinstance(key, str) or type(size) is not int or size < 0:
    raise TypeError(key)
  return Storage(globals_lib.storage_dtype(kind), key, size)
