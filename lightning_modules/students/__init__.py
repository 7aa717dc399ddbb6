"""The encoders that are trained."""
