"""Low-rank adapters: task vectors that are products of two small factors.

LoRAs from the task vector of any merge::

    found = adapters.extract(delta, rank=16, matrices=tree.torch)
    print(max(found.errors.values()))
    checkpoint.save_lora('lora', found.factors, base=base)

LoRAs of different ranks and scales, merged in factor space::

    merged = adapters.lego(adapters.stack(loras), rank=16)

A model of low rank, with the least error of its outputs, applied without the
products of factors::

    small = adapters.factorise(params, ratio=0.5, grams=stats.gram(...))
    logits = jax.jit(partial(adapters.call, apply_fn))(small.params, inputs)
"""

from wsl.adapters._bases import orthogonal_bases as orthogonal_bases
from wsl.adapters._bases import overlap as overlap
from wsl.adapters._call import call as call
from wsl.adapters._decompose.compress import compress as compress
from wsl.adapters._decompose.extract import extract as extract
from wsl.adapters._decompose.extract import Extraction as Extraction
from wsl.adapters._factorise import factorise as factorise
from wsl.adapters._factorise import Factorised as Factorised
from wsl.adapters._gates import balance as balance
from wsl.adapters._gates import mora_gates as mora_gates
from wsl.adapters._gates import smora_gates as smora_gates
from wsl.adapters._lego import lego as lego
from wsl.adapters._project import gate as gate
from wsl.adapters._project import project as project
from wsl.adapters._shards import expand as expand
from wsl.adapters._shards import mos as mos
from wsl.adapters._shards import Shards as Shards
from wsl.adapters._shards import ShardTable as ShardTable
from wsl.adapters._stack import stack as stack
from wsl.deltas import dense as dense
from wsl.deltas import Factors as Factors
