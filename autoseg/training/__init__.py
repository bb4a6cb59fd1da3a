"""The training engine: losses, sampling, augmentation, schedule, the loop, checkpoints."""
