"""Workers: what each tells of itself."""
