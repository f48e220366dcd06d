"""LoRA folders of PEFT: their exact dense task vectors, leaf by leaf."""
