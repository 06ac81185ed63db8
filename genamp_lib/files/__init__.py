"""A user's tables, read block by block and counted by workers."""
