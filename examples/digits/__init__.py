"""An example of what a user writes: a model that recognises handwritten digits, its training and its bundled data."""
