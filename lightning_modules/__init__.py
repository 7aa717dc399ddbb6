"""The training loop: module, encoders, teachers, callbacks. This module imports nothing, so that it costs nothing."""
