"""Making and changing an experiment by a form of several steps."""
