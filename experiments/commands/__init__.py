"""The larger commands of ``upturn``, one module each."""
