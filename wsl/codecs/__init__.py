"""Compact task vectors: encoded to small files, decoded to leaves on demand.

One file for each task, beside the base that all of them share::

    packed = codecs.compeft(deltas, density=0.1)
    print(codecs.size(packed))
    codecs.save('task.safetensors', packed)

    packs = [codecs.load(file, lazy=True) for file in files]
    stack = tree.stack([codecs.decode(packed) for packed in packs])
    checkpoint.save('merged', deltas.apply(base, merge.ties(stack,
    density=0.2)))

A pack is the tree of the task vector whose leaves are compressed; it is a
pytree, and nothing in it depends on the base.
"""

from wsl.codecs._blocks.bitstack import bitstack as bitstack
from wsl.codecs._blocks.leaf import SignBlocks as SignBlocks
from wsl.codecs._blocks.truncate import block_order as block_order
from wsl.codecs._blocks.truncate import truncate as truncate
from wsl.codecs._decode import decode as decode
from wsl.codecs._file import load as load
from wsl.codecs._file import save as save
from wsl.codecs._low_rank.codes import Codes as Codes
from wsl.codecs._low_rank.codes import Segment as Segment
from wsl.codecs._low_rank.skillpack import skillpack as skillpack
from wsl.codecs._masks import Bits as Bits
from wsl.codecs._masks import masks as masks
from wsl.codecs._packed import Packed as Packed
from wsl.codecs._size import LeafSize as LeafSize
from wsl.codecs._size import Size as Size
from wsl.codecs._size import size as size
from wsl.codecs._ternary.compeft import compeft as compeft
from wsl.codecs._ternary.leaf import Ternary as Ternary
