"""Where bytes come from: repository addresses, the guarded resolver, git."""
