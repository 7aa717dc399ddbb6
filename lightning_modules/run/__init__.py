"""What belongs to a run: its folder, checkpoints, loggers, plots and results."""
