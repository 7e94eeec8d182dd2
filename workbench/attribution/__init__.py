"""Which words and parts of a picture an answer depends on, and whether an explanation can be trusted."""
