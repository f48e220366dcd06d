"""Recovery of lost stages, memory of earlier tasks, patches of models."""
