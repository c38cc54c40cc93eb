"""What a version's server imports to guard its port: nothing else of ours, for a Bento brings its own `contract/`."""
