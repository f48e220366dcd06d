"""LoRA folders of PEFT: read as exact task vectors, written from factors."""
