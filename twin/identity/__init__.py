"""A local managed-identity endpoint, its tokens and the twin's certificates."""
