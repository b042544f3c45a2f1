"""The start of stages on GPUs: `__main__` becomes the stage, `gpus` claims devices for it."""
