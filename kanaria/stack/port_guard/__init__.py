"""Guards a version's port inside its server. Imports nothing else of ours: a Bento has its own `contract/`."""
