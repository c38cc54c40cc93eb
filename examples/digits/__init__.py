"""An example of what a user writes: a model that recognises handwritten digits, with its training and bundled data."""
