"""Where bytes come from: repository addresses, the guarded transport, git, and sources of files."""
