"""Examples and their sources: the MiniGuard world, its splits, readers of files, first-word statistics."""
