"""Checkpoints: safetensors in and out, leaf by leaf; Orbax for whole runs.

The only room that reads and writes files of parameters. Merges accept leaves
on demand, so a merge of models that do not fit in memory is one expression::

    base = checkpoint.load('base', lazy=True)
    models = [checkpoint.load(p, lazy=True) for p in ('a', 'b', 'c')]
    delta = merge.mean(deltas.stack(base, models))
    print(checkpoint.plan(deltas.apply(base, delta)))
    checkpoint.save('merged', deltas.apply(base, delta))
"""

from wsl.checkpoint._format import format_bytes as format_bytes
from wsl.checkpoint._load import load as load
from wsl.checkpoint._load import metadata as metadata
from wsl.checkpoint._lora.load import load_lora as load_lora
from wsl.checkpoint._lora.save import save_lora as save_lora
from wsl.checkpoint._plan.plan import plan as plan
from wsl.checkpoint._plan.probe import Rates as Rates
from wsl.checkpoint._plan.rows import LeafPlan as LeafPlan
from wsl.checkpoint._plan.rows import Plan as Plan
from wsl.checkpoint._plan.rows import StatisticPlan as StatisticPlan
from wsl.checkpoint._run import restore_run as restore_run
from wsl.checkpoint._run import save_run as save_run
from wsl.checkpoint._run import steps as steps
from wsl.checkpoint._save import file_bytes as file_bytes
from wsl.checkpoint._save import save as save
from wsl.checkpoint._zoo.trials import load_trial as load_trial
from wsl.checkpoint._zoo.trials import load_zoo as load_zoo
from wsl.checkpoint._zoo.trials import Trial as Trial
from wsl.checkpoint._zoo.vectors import split_vectors as split_vectors
