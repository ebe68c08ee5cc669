"""Training engine for all models: loop, checkpoints, schedule, optimizer, precision."""
