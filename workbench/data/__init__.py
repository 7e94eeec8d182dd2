"""Examples and where they come from: the world MiniGuard, its splits, readers of files, and what their first words say."""
